/*
 * transfer.h - what segment loads, far transfers and event delivery share.
 *
 * Predicates over descriptors (SDM vol. 3, 3.4.5 and 3.5), and the stack of an entered privilege
 * level. A transfer does everything that may fault first - descriptor checks, stack_reserve,
 * mark_accessed - and only then changes registers, so that a fault finds the state as it was.
 * segment.c and transfer.c have the code; far.c and event.c are its users.
 */
#ifndef SEVENTEEN_TRANSFER_H
#define SEVENTEEN_TRANSFER_H

#include "cpu.h"

/* Types of system descriptors (SDM vol. 3, table 3-2). */
enum system_type {
    TYPE_TSS16 = 1,
    TYPE_LDT,
    TYPE_TSS16_BUSY,
    TYPE_CALL_GATE16,
    TYPE_TASK_GATE,
    TYPE_INTERRUPT_GATE16,
    TYPE_TRAP_GATE16,
    TYPE_TSS32 = 9,
    TYPE_TSS32_BUSY = 11,
    TYPE_CALL_GATE32,
    TYPE_INTERRUPT_GATE32 = 14,
    TYPE_TRAP_GATE32
};

enum { SELECTOR_RPL = 3, SELECTOR_TI = 4, ERROR_EXTERNAL = 1, ERROR_IDT = 2 };

/* Bits of a descriptor's high doubleword. */
enum {
    HIGH_ACCESSED = 1 << 8,
    HIGH_BUSY = 1 << 9,
    HIGH_CODE_OR_DATA = 1 << 12,
    HIGH_PRESENT = 1 << 15,
    HIGH_BIG = 1 << 22
};

INLINE bool is_null(u32 selector) {
    return (selector & 0xFFFC) == 0;
}

INLINE u32 descriptor_dpl(Descriptor d) {
    return d.high >> 13 & 3;
}

INLINE bool is_present(Descriptor d) {
    return (d.high & HIGH_PRESENT) != 0;
}

INLINE bool is_system(Descriptor d) {
    return !(d.high & HIGH_CODE_OR_DATA);
}

INLINE u32 system_type(Descriptor d) {
    return d.high >> 8 & 15;
}

INLINE bool is_code(Descriptor d) {
    return (d.high & 0x1800) == 0x1800;
}

INLINE bool is_conforming(Descriptor d) {
    return (d.high & 0x1C00) == 0x1C00;
}

INLINE bool is_writable_data(Descriptor d) {
    return (d.high & 0x1A00) == 0x1200;
}

/* Data, or code that may be read. */
INLINE bool is_readable(Descriptor d) {
    return (d.high & 0x1800) == 0x1000 || (d.high & 0x1A00) == 0x1A00;
}

/* As fetch_descriptor, with the error code's EXT bit chosen. */
Descriptor fetch_descriptor_ext(Cpu *cpu, u32 selector, u32 vector, u32 ext);
/* May `size` bytes at `offset` be accessed as far as the segment's limit goes? */
bool within_limit(const Segment *segment, u32 offset, u32 size);
/* #AC if a user access of 2, 4 or 8 bytes must be aligned and is not. */
void check_alignment(Cpu *cpu, u32 linear, u32 size);
/* Linear bytes of a TSS field; the caller has checked the limit. */
u32 load_tss(Cpu *cpu, u32 offset, u32 size);
/* Leave with EXIT_UNSUPPORTED if a present code segment is one of 16 bits. */
void refuse_code16(Cpu *cpu, Descriptor code);

/* A stack that an event or far call is about to push on. */
typedef struct {
    Segment segment;
    u32 pointer;
    u32 cpl;               /* whose rights the pushes have */
    u32 selector;          /* for #SS when it has no room; 0 for the stack in use */
    Descriptor descriptor; /* of a stack from the TSS, to be marked accessed */
} Stack;

/* The stack in use. */
Stack stack_in_use(const Cpu *cpu);
/* The stack that the TSS holds for a privilege level, checked (#TS, #SS). */
Stack stack_of_level(Cpu *cpu, u32 level, u32 ext);
/* #SS or #PF now unless `count` elements of `bits` can be pushed. */
void stack_reserve(Cpu *cpu, const Stack *stack, u32 count, u32 bits, u32 ext);
/* Push on a reserved stack; cannot fault. */
void stack_write(Cpu *cpu, Stack *stack, u32 bits, u32 value);
/* Make it the stack in use. set_cpl must follow. */
void stack_install(Cpu *cpu, const Stack *stack);

/* -- far.c ------------------------------------------------------------------------------------- */
/* EFLAGS bits that IRET and POPF may load at this CPL and IOPL (SDM vol. 2, POPF). */
u32 loadable_flags(const Cpu *cpu, u32 bits);
/* Load these bits of EFLAGS, and see to what follows from TF and IF. */
void load_flags(Cpu *cpu, u32 mask, u32 value);

/* -- event.c ----------------------------------------------------------------------------------- */
/* INT n, INT3, INTO: deliver, or leave if the vector is intercepted. */
void software_interrupt(Cpu *cpu, u32 vector);

/* -- debug.c ----------------------------------------------------------------------------------- */
/* Note an access of `size` bytes to a port (I/O breakpoints, CR4.DE). */
void debug_note_port(Cpu *cpu, u32 port, u32 size);
/* Are data or I/O breakpoints enabled? */
bool debug_watches_data(const Cpu *cpu);

#endif
