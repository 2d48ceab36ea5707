/*
 * system.c - what an operating system costs: cost=syscall, cost=fault or cost=cr3, iterations=N.
 *
 *   syscall  ring 3 executes INT 0x80; ring 0 counts and returns
 *   fault    ring 3 touches a page that is not there; ring 0 maps it and returns. Every FAULT_PAGES
 *            faults another call takes the pages away again and reloads CR3
 *   cr3      ring 0 reloads CR3, then touches TOUCHED pages
 *
 * Ring 3 runs the functions user_*; everything is mapped one to one for all rings.
 */
#include "machine.h"

enum { FAULT_PAGES = 256, TOUCHED = 16, ARENA = 0xC00000, PAGE = 4096 };
enum { KERNEL_CODE = 8, KERNEL_DATA = 16, USER_CODE = 24 + 3, USER_DATA = 32 + 3, TASK = 40 };

struct descriptor_pointer {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

static uint64_t gdt[6];
static uint64_t idt[256];
static uint32_t task[26];
static uint8_t user_stack[PAGE] __attribute__((aligned(16)));
uint8_t kernel_stack[PAGE] __attribute__((aligned(16)));
uint32_t calls, saved_stack;

/* handle_fault and handle_unmap keep all registers but the three the caller may lose. */
__asm__(".text\n"
        "on_syscall: incl calls\n"
        "    iret\n"
        "on_fault: push %eax; push %ecx; push %edx\n"
        "    call handle_fault\n"
        "    pop %edx; pop %ecx; pop %eax\n"
        "    add $4, %esp\n"
        "    iret\n"
        "on_unmap: push %eax; push %ecx; push %edx\n"
        "    call handle_unmap\n"
        "    pop %edx; pop %ecx; pop %eax\n"
        "    iret\n"
        /* INT 0x82: ring 3 is done; back to where enter_user was called. */
        "on_done: mov $16, %eax\n"
        "    mov %eax, %ds; mov %eax, %es\n"
        "    mov saved_stack, %esp\n"
        "    popa\n"
        "    ret\n"
        /* enter_user(code, stack, iterations): the last goes to ring 3 in ESI. */
        "enter_user: mov 4(%esp), %eax; mov 8(%esp), %ecx; mov 12(%esp), %edx\n"
        "    pusha\n"
        "    mov %esp, saved_stack\n"
        "    mov %edx, %esi\n"
        "    mov $35, %edx\n"
        "    mov %edx, %ds; mov %edx, %es\n"
        "    push $35; push %ecx; pushf; push $27; push %eax\n"
        "    iret\n"
        "user_syscall: test %esi, %esi; jz 2f\n"
        "1:  int $0x80\n"
        "    dec %esi; jnz 1b\n"
        "2:  int $0x82\n"
        "user_fault: test %esi, %esi; jz 2f\n"
        "1:  mov $0xC00000, %edi; mov $256, %ecx\n"
        "3:  movl %esi, (%edi)\n"
        "    add $4096, %edi; dec %esi; jz 2f\n"
        "    dec %ecx; jnz 3b\n"
        "    int $0x81\n"
        "    jmp 1b\n"
        "2:  int $0x82\n");

void on_syscall(void), on_fault(void), on_unmap(void), on_done(void);
void user_syscall(void), user_fault(void);
void enter_user(void (*code)(void), uint8_t *stack, uint32_t iterations);
void handle_fault(void);
void handle_unmap(void);

void handle_fault(void) {
    uint32_t linear;
    __asm__ volatile("mov %%cr2, %0" : "=r"(linear));
    *page_entry(linear) |= PAGE_PRESENT;
    calls++;
}

void handle_unmap(void) {
    for (uint32_t i = 0; i < FAULT_PAGES; i++)
        *page_entry(ARENA + i * PAGE) &= ~(uint32_t)PAGE_PRESENT;
    load_cr3();
}

static uint64_t segment(uint32_t base, uint32_t limit, uint32_t attributes) {
    return (limit & 0xFFFF) | (uint64_t)(base & 0xFFFFFF) << 16 | (uint64_t)attributes << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

static void set_gate(uint32_t vector, void (*handler)(void), uint32_t attributes) {
    uint32_t offset = (uint32_t)handler;
    idt[vector] = (offset & 0xFFFF) | KERNEL_CODE << 16 | (uint64_t)attributes << 40 |
                  (uint64_t)(offset >> 16) << 48;
}

static void load_tables(void) {
    struct descriptor_pointer gdtr = {sizeof gdt - 1, (uint32_t)gdt};
    struct descriptor_pointer idtr = {sizeof idt - 1, (uint32_t)idt};
    gdt[1] = segment(0, 0xFFFFF, 0xC09A);
    gdt[2] = segment(0, 0xFFFFF, 0xC092);
    gdt[3] = segment(0, 0xFFFFF, 0xC0FA);
    gdt[4] = segment(0, 0xFFFFF, 0xC0F2);
    gdt[5] = segment((uint32_t)task, sizeof task - 1, 0x89);
    task[1] = (uint32_t)kernel_stack + sizeof kernel_stack; /* ESP0 */
    task[2] = KERNEL_DATA;                                  /* SS0 */
    task[25] = sizeof task << 16;                           /* no I/O bitmap */
    set_gate(14, on_fault, 0x8E);
    set_gate(0x80, on_syscall, 0xEE);
    set_gate(0x81, on_unmap, 0xEE);
    set_gate(0x82, on_done, 0xEE);
    __asm__ volatile("lgdt %0\n\t"
                     "lidt %1\n\t"
                     "ljmp $8, $1f\n"
                     "1:\tmov $16, %%eax\n\t"
                     "mov %%eax, %%ds; mov %%eax, %%es; mov %%eax, %%ss\n\t"
                     "mov $40, %%eax\n\t"
                     "ltr %%ax"
                     :
                     : "m"(gdtr), "m"(idtr)
                     : "eax", "memory");
}

static void reload_cr3(uint32_t iterations) {
    for (; iterations; iterations--) {
        load_cr3();
        for (uint32_t i = 0; i < TOUCHED; i++) ++*(volatile uint32_t *)(ARENA + i * PAGE);
    }
    calls = *(volatile uint32_t *)ARENA;
}

int main(const struct multiboot *information) {
    const char *cost = option(information, "cost");
    uint32_t iterations = number(option(information, "iterations"));
    enable_paging();
    load_tables();
    if (cost && *cost == 's') {
        enter_user(user_syscall, user_stack + PAGE, iterations);
    } else if (cost && *cost == 'f') {
        handle_unmap();
        enter_user(user_fault, user_stack + PAGE, iterations);
    } else {
        reload_cr3(iterations);
    }
    print_number("count", calls);
    return 0;
}
