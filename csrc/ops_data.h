/*
 * ops_data.h - bodies that move data. Values in, value out: generated code fetches and stores.
 */
#ifndef SEVENTEEN_OPS_DATA_H
#define SEVENTEEN_OPS_DATA_H

#include "flags.h"
#include "operand.h"

#define BODY INLINE UNUSED
#define CONTEXT UNUSED Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s

BODY u32 op_mov(CONTEXT, u32 source) {
    return source;
}

BODY u32 op_movzx(CONTEXT, u32 source) {
    return source;
}

BODY u32 op_movsx_byte(CONTEXT, u32 source) {
    return (u32)(i8)source;
}

BODY u32 op_movsx_word(CONTEXT, u32 source) {
    return (u32)(i16)source;
}

BODY u32 op_lea(CONTEXT, u32 offset) {
    return offset;
}

BODY void op_push(CONTEXT, u32 value) {
    stack_push(cpu, in, s.bits, value);
}

/* A memory destination is addressed with ESP already raised (SDM vol. 2, POP). */
BODY void op_pop(CONTEXT) {
    u32 value = stack_peek(cpu, in, s.bits, 0), before = cpu->state.gpr[ESP];
    set_stack_pointer(cpu, before + s.bits / 8);
    if (s.form == FORM_REG) {
        set_reg(cpu, in->rm, s.bits, value);
    } else {
        u32 after = cpu->state.gpr[ESP], offset = effective_address(cpu, in);
        cpu->state.gpr[ESP] = before; /* until nothing can fault any more */
        store_any(cpu, in, offset_linear(cpu, in, offset, s.bits / 8, true), s.bits / 8, value);
        cpu->state.gpr[ESP] = after;
    }
}

BODY void op_pusha(CONTEXT) {
    u32 size = s.bits / 8, esp = cpu->state.gpr[ESP];
    u32 linear[8];
    cpu->current = in;
    for (u32 i = 0; i < 8; i++) { /* in the order of the pushes, so the first to fail is reported */
        linear[i] = stack_linear(cpu, esp - (i + 1) * size, size, true);
        probe_store(cpu, linear[i], size, cpu->state.cpl == 3);
    }
    for (u32 i = 0; i < 8; i++) store(cpu, in, linear[i], size, get_gpr(cpu, i, s.bits));
    set_stack_pointer(cpu, esp - 8 * size);
}

BODY void op_popa(CONTEXT) {
    u32 values[8];
    for (u32 i = 0; i < 8; i++) values[i] = stack_peek(cpu, in, s.bits, i);
    set_stack_pointer(cpu, cpu->state.gpr[ESP] + s.bits);
    for (u32 i = 0; i < 8; i++)
        if (7 - i != ESP) set_gpr(cpu, 7 - i, s.bits, values[i]);
}

BODY void op_xchg(CONTEXT, u32 *a, u32 *b) {
    u32 was = *a;
    *a = *b;
    *b = was;
}

BODY u32 op_cmovcc(CONTEXT, u32 old, u32 source) {
    return condition(cpu, in->cc) ? source : old;
}

BODY u32 op_setcc(CONTEXT) {
    return condition(cpu, in->cc);
}

BODY void op_cbw(CONTEXT) {
    set_gpr(cpu, EAX, 16, (u32)(i8)cpu->state.gpr[EAX]);
}

BODY void op_cwde(CONTEXT) {
    cpu->state.gpr[EAX] = (u32)(i16)cpu->state.gpr[EAX];
}

BODY void op_cwd(CONTEXT) {
    set_gpr(cpu, EDX, 16, cpu->state.gpr[EAX] & 0x8000 ? 0xFFFF : 0);
}

BODY void op_cdq(CONTEXT) {
    cpu->state.gpr[EDX] = cpu->state.gpr[EAX] & 0x80000000u ? 0xFFFFFFFFu : 0;
}

/* With a 16-bit operand the result is undefined; processors give zero. */
BODY u32 op_bswap(CONTEXT, u32 value) {
    return s.bits == 32 ? __builtin_bswap32(value) : 0;
}

BODY void op_xlat(CONTEXT) {
    u32 offset = cpu->state.gpr[EBX] + (cpu->state.gpr[EAX] & 0xFF);
    if (in->flags & INSN_ADDR16) offset &= 0xFFFF;
    set_gpr(cpu, EAX, 8, load(cpu, in, segment_linear(cpu, in->segment, offset, 1, false), 1));
}

BODY void op_leave(CONTEXT) {
    u32 before = cpu->state.gpr[ESP], value;
    set_stack_pointer(cpu, cpu->state.gpr[EBP]);
    if (likely(cpu->mode & MODE_FLAT)) {
        u32 at = cpu->state.gpr[ESP];
        cpu->state.gpr[ESP] = before; /* until nothing can fault any more */
        value = stack_load(cpu, in, at, s.bits / 8);
        cpu->state.gpr[ESP] = at + s.bits / 8;
    } else {
        u32 at = cpu->state.gpr[ESP];
        cpu->state.gpr[ESP] = before;
        cpu->current = in;
        value = load(cpu, in, stack_linear(cpu, at, s.bits / 8, false), s.bits / 8);
        set_stack_pointer(cpu, at);
        set_stack_pointer(cpu, cpu->state.gpr[ESP] + s.bits / 8);
    }
    set_gpr(cpu, EBP, s.bits, value);
}

BODY void op_enter(CONTEXT, u32 size, u32 level) {
    u32 before = cpu->state.gpr[ESP], frame, step = s.bits / 8, ebp = cpu->state.gpr[EBP];
    level &= 31;
    /* Work on ESP itself, and put it back should an access fault. */
    u32 esp = before - step, at;
    cpu->current = in;
    store(cpu, in, stack_linear(cpu, esp, step, true), step, get_gpr(cpu, EBP, s.bits));
    frame = esp;
    for (u32 i = 1; i < level; i++) {
        ebp -= step;
        at = stack_linear(cpu, ebp, step, false);
        esp -= step;
        store(cpu, in, stack_linear(cpu, esp, step, true), step, load(cpu, in, at, step));
    }
    if (level > 0) {
        esp -= step;
        store(cpu, in, stack_linear(cpu, esp, step, true), step, frame);
    }
    esp -= size;
    /* The new top must be writable, though nothing is written there (SDM vol. 2, ENTER). */
    probe_store(cpu, stack_linear(cpu, esp, step, true), step, cpu->state.cpl == 3);
    set_gpr(cpu, EBP, s.bits, frame);
    set_stack_pointer(cpu, esp);
}

#endif
