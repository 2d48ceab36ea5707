/* interrupts.c - an interrupt table, and what is known of each vector. Next: apic.c. */
#include "kernel.h"

enum { VECTORS = 256, EXCEPTIONS = 32, STUB = 16, GATE = 0x8E00, CODE = 0x08, PAGE_FAULT = 14 };

struct gate {
    u16 low, selector, type, high;
};

extern const u8 stubs[];
static struct gate gates[VECTORS] __attribute__((aligned(4096)));
static Handler handlers[VECTORS];
volatile u32 taken[VECTORS];
volatile u32 fault_vector, fault_error, fault_address, resume;

void dispatch(struct frame *frame);

void dispatch(struct frame *frame) {
    u32 vector = frame->vector;
    taken[vector]++;
    if (handlers[vector]) {
        handlers[vector](frame);
    } else if (vector < EXCEPTIONS && resume) {
        fault_vector = vector;
        fault_error = frame->error;
        if (vector == PAGE_FAULT) __asm__ volatile("mov %%cr2, %0" : "=r"(fault_address));
        frame->eip = resume;
        resume = 0;
    } else {
        check("no vector that nobody expects", vector, ~0u);
        check("its error code", frame->error, ~0u);
        check("its address", frame->eip, ~0u);
        end(1);
    }
}

void on_vector(u8 vector, Handler handler) {
    handlers[vector] = handler;
    taken[vector] = 0;
}

void install_interrupts(void) {
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) pointer = {sizeof gates - 1, (u32)gates};
    for (u32 i = 0; i < VECTORS; i++) {
        u32 stub = (u32)stubs + i * STUB;
        gates[i] = (struct gate){(u16)stub, CODE, GATE, (u16)(stub >> 16)};
    }
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void wait_for(u8 vector, u32 wanted) {
    for (;;) {
        disable();
        if (taken[vector] >= wanted) return;
        __asm__ volatile("sti; hlt" : : : "memory");
    }
}

void settle(void) {
    enable();
    for (volatile u32 i = 0; i < 20; i++)
        ;
    disable();
}
