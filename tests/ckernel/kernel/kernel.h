/*
 * kernel.h - a kernel that checks the machine it runs on, part by part.
 *
 * Each part is a function of a file of its own, called by main.c; it makes claims by `check`, which
 * prints a line for each. What is printed must be the same on every machine that is a PC with APICs.
 * Claims about time hold only where time is that of instructions: they are made if the command line
 * says `timed`. Next: main.c, then the parts in its order.
 */
#ifndef KERNEL_H
#define KERNEL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* -- main.c ------------------------------------------------------------------------------------- */

/* "ok NAME", or what was found and what was expected. */
void check(const char *name, u32 found, u32 expected);
void print(const char *text);
_Noreturn void end(u32 status);
extern bool timed;

/* The parts, in the order in which they run. */
struct multiboot;
void check_boot(u32 magic, const struct multiboot *information);
void check_cpu(void);
void check_tables(void);
void check_paging(void);
void check_local_apic(void);
void check_priorities(void);
void check_timer(void);
void check_lines(void);
void check_levels(void);
void check_disk(void);

/* -- interrupts.c --------------------------------------------------------------------------------- */

/* What lies on the stack when `dispatch` is called. */
struct frame {
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax, vector, error, eip, cs, eflags;
};

typedef void (*Handler)(struct frame *frame);

void install_interrupts(void);
void on_vector(u8 vector, Handler handler);
extern volatile u32 taken[256]; /* how often, by vector */

/* What the last exception said, and where to go on after one: set by those that provoke them. */
extern volatile u32 fault_vector, fault_error, fault_address, resume;

/* Halt until so many interrupts of a vector have been taken. */
void wait_for(u8 vector, u32 wanted);
/* Let in what waits; give it time to come. */
void settle(void);

/* -- apic.c --------------------------------------------------------------------------------------- */

/* Registers of the local APIC, by offset. */
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xA0,
    APIC_EOI = 0xB0,
    APIC_LDR = 0xD0,
    APIC_DFR = 0xE0,
    APIC_SVR = 0xF0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LINT0 = 0x350,
    APIC_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3E0,

    MASKED = 1 << 16,
    PERIODIC = 1 << 17,
    EXTINT = 7 << 8,
    NMI = 4 << 8,
    TO_SELF = 1 << 18,
    TO_ALL = 2 << 18,
    LOGICAL = 1 << 11,
    SPURIOUS = 0xFF
};

u32 apic_read(u32 offset);
void apic_write(u32 offset, u32 value);
/* Is a vector in one of the three sets? */
bool apic_has(u32 set, u8 vector);
void apic_end(void);
void send_to_self(u8 vector);

/* -- tables.c --------------------------------------------------------------------------------------- */

enum { NO_PIN = 0xFF, PINS = 24 };
extern u32 local_apic, io_apic; /* machine addresses */
u8 pin_of_line(u8 line);

/* -- lines.c ---------------------------------------------------------------------------------------- */

enum { PIC_BASE = 0x20, REMOTE_IRR = 1 << 14, LEVEL = 1 << 15 };

u32 io_apic_read(u8 number);
void io_apic_write(u8 number, u32 value);
/* Send a pin as `low` says, to this processor. */
void route(u8 pin, u32 low);
void mask_8259s(u16 lines);
void set_timer_hertz(u32 hertz);
/* Sleep for so many periods of the local APIC's timer, with all else let in. */
void pass_time(u32 count);

enum { COM1 = 0x3F8, COM1_LINE = 4, TIMER_LINE = 0 };

/* -- The processor -------------------------------------------------------------------------------- */

static inline void out8(u16 port, u8 value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 in8(u16 port) {
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u64 time_stamp(void) {
    u64 value;
    __asm__ volatile("rdtsc" : "=A"(value));
    return value;
}

static inline void enable(void) {
    __asm__ volatile("sti" : : : "memory");
}

static inline void disable(void) {
    __asm__ volatile("cli" : : : "memory");
}

#endif
