/*
 * apic_api.h - the local APIC's part of api.h: registers, and what Python does with them.
 *
 * Like api.h it is handed to cffi. apic.c says what the registers do.
 */
#ifndef SEVENTEEN_APIC_API_H
#define SEVENTEEN_APIC_API_H
#include <stdint.h>

typedef struct Cpu Cpu;

/* Machine address of its page of registers. */
enum { APIC_BASE = 0xFEE00000 };

enum apic_lvt {
    LVT_TIMER,
    LVT_THERMAL,
    LVT_PERFORMANCE,
    LVT_LINT0,
    LVT_LINT1,
    LVT_ERROR,
    LVT_COUNT
};

/* A local APIC's registers (SDM vol. 3, chapter 11), and what they do not show. Sets of vectors are
   bit masks. */
typedef struct {
    uint32_t base; /* low half of IA32_APIC_BASE; 0: the CPU has none */
    uint32_t id, tpr, ldr, dfr, svr, esr, icr_low, icr_high, initial_count, divide;
    uint32_t lvt[6];
    uint32_t irr[8], isr[8], tmr[8];
    uint32_t errors;      /* since ESR was last written */
    uint32_t intr;        /* level of the LINT0 pin: the 8259s' output */
    uint32_t expired;     /* the one-shot timer has come to 0 */
    uint32_t asserted;    /* APIC_LENT: the output is up */
    uint64_t timer_start; /* tick at which the count was the initial one */
} Apic;

/* Whether the CPU has a local APIC, from the next reset on, and who answers for it. */
enum apic_mode {
    APIC_NONE,
    APIC_BUS, /* the caller: accesses exit as to any device, for cpu_apic_read and _write; so do its
                    interrupts, for cpu_acknowledge; and it stops at state.timer_due, and calls
                    cpu_apic_advance */
    APIC_SERVED, /* the core: it makes the accesses, runs the timer and delivers interrupts */
    APIC_LENT /* the core, but for delivery: the APIC is lent to a guest, whose interrupts are not
                    the CPU's own. EXIT_INTERRUPT: its output has risen */
};
void cpu_set_apic(Cpu *cpu, uint32_t mode);
/* Its registers, by machine address. cpu_apic_write returns the vector of a level-triggered
   interrupt that the write has ended, which an I/O APIC must hear of; or -1. */
uint32_t cpu_apic_read(Cpu *cpu, uint32_t address, uint32_t size);
int cpu_apic_write(Cpu *cpu, uint32_t address, uint32_t size, uint32_t value);
/* An interrupt message for `destination`, physical or logical; mode: SDM vol. 3, 11.5.1, delivery
   mode. Returns whether the CPU is meant. */
int cpu_apic_message(Cpu *cpu, uint32_t destination, int logical, uint32_t mode, uint32_t vector,
                     int level);
/* Let its timer act, if that is due by state.tick. */
void cpu_apic_advance(Cpu *cpu);
/* Take the local APIC's interrupt: its vector; or -1 if it has none, and the 8259s are to be asked. */
int cpu_acknowledge(Cpu *cpu);
/* Drive the CPU's INTR pin, or its local APIC's LINT0: the output of the 8259s. */
void cpu_set_interrupt(Cpu *cpu, int level);

#endif
