/*
 * guest.h - what guest mode means to instructions that read or change what the host may own.
 *
 * VT-x's guest/host masks and read shadows: of the bits that are the host's the guest reads its own
 * values, and to change one is an exit. guest.c has entry and exit.
 */
#ifndef SEVENTEEN_GUEST_H
#define SEVENTEEN_GUEST_H

#include "cpu.h"

/* CR0 and CR4 as they read. */
INLINE u32 visible_cr0(const Cpu *cpu) {
    const ControlBlock *control = cpu->control;
    if (likely(control == NULL)) return cpu->state.cr0;
    return (cpu->state.cr0 & ~control->cr0_mask) | (control->guest_cr0 & control->cr0_mask);
}

INLINE u32 visible_cr4(const Cpu *cpu) {
    const ControlBlock *control = cpu->control;
    if (likely(control == NULL)) return cpu->state.cr4;
    return (cpu->state.cr4 & ~control->cr4_mask) | (control->guest_cr4 & control->cr4_mask);
}

/* Is there nothing on a port for the guest? */
INLINE bool is_port_empty(const Cpu *cpu, u32 port) {
    const ControlBlock *control = cpu->control;
    return unlikely(control != NULL) && !(control->ports[port >> 3] >> (port & 7) & 1);
}

#endif
