/*
 * ops_control.h - bodies of near control transfer.
 *
 * A direct jump's body says whether it is taken; the executor knows where it leads. An indirect one
 * sets state.eip. A target beyond the limit of CS is #GP(0) at the jump, before it has any effect.
 * What every instruction body may ask of the outer loop is declared in cpu.h (run.c).
 */
#ifndef SEVENTEEN_OPS_CONTROL_H
#define SEVENTEEN_OPS_CONTROL_H

#include "ops_data.h"

BODY void check_target(Cpu *cpu, const Insn *in, u32 eip) {
    if (likely(!(cpu->mode & (MODE_LIMITED | MODE_CUT)))) return;
    cpu->current = in;
    if (eip > cpu->state.seg[SEG_CS].limit) raise_error(cpu, VECTOR_GP, 0);
}

BODY bool op_jcc(CONTEXT, unsigned cc) {
    return condition(cpu, cc);
}

/* The same right after CMP a,b or TEST a,b, from the operands; the row fuses with the jump. */
BODY bool cmp_condition(u32 a, u32 b, unsigned bits, unsigned cc) {
    i64 x = sign_extend(a, bits), y = sign_extend(b, bits);
    bool holds = false;
    switch (cc >> 1) {
    case 0: holds = overflow_sub(a, b, a - b, bits); break;
    case 1: holds = a < b; break;
    case 2: holds = a == b; break;
    case 3: holds = a <= b; break;
    case 4: holds = sign_extend(a - b, bits) < 0; break;
    case 5: holds = !(__builtin_popcount((a - b) & 0xFF) & 1); break;
    case 6: holds = x < y; break;
    case 7: holds = x <= y; break;
    }
    return holds != (cc & 1);
}

BODY bool test_condition(u32 a, u32 b, unsigned bits, unsigned cc) {
    i64 result = sign_extend(a & b, bits);
    bool holds = false;
    switch (cc >> 1) {
    case 2:
    case 3: holds = result == 0; break;
    case 4:
    case 6: holds = result < 0; break;
    case 5: holds = !(__builtin_popcount((u32)result & 0xFF) & 1); break;
    case 7: holds = result <= 0; break;
    default: break; /* CF and OF are clear */
    }
    return holds != (cc & 1);
}

BODY bool op_jmp(CONTEXT, UNUSED unsigned cc) {
    return true;
}

BODY bool op_call(CONTEXT, UNUSED unsigned cc) {
    if (unlikely(cpu->mode & MODE_LIMITED)) check_target(cpu, in, in->immediate); /* or guard has */
    stack_push(cpu, in, in->flags & INSN_OPERAND16 ? 16 : 32, in->immediate2);
    return true;
}

/* Count ECX, or CX with a 16-bit address size, down: whether to jump, if the flags allow. */
BODY bool count_down(Cpu *cpu, const Insn *in, bool allowed) {
    u32 bits = in->flags & INSN_ADDR16 ? 16 : 32;
    u32 count = (get_gpr(cpu, ECX, bits) - 1) & size_mask(bits);
    bool taken = count != 0 && allowed;
    if (taken) check_target(cpu, in, in->immediate);
    set_gpr(cpu, ECX, bits, count);
    return taken;
}

BODY bool op_loop(CONTEXT, UNUSED unsigned cc) {
    return count_down(cpu, in, true);
}

BODY bool op_loopz(CONTEXT, UNUSED unsigned cc) {
    return count_down(cpu, in, flag_zf(cpu));
}

BODY bool op_loopnz(CONTEXT, UNUSED unsigned cc) {
    return count_down(cpu, in, !flag_zf(cpu));
}

BODY bool op_jecxz(CONTEXT, UNUSED unsigned cc) {
    return get_gpr(cpu, ECX, in->flags & INSN_ADDR16 ? 16 : 32) == 0;
}

/* The executor checks the targets of this and of RET, if no block is known to be there. */
BODY void op_jmp_indirect(CONTEXT, u32 target) {
    cpu->state.eip = target;
}

BODY void op_call_indirect(CONTEXT, u32 target) {
    check_target(cpu, in, target);
    stack_push(cpu, in, s.bits, in->immediate2);
    cpu->state.eip = target;
}

/* The immediate, zero in the plain form, is released after the return address. */
BODY void op_ret(CONTEXT) {
    u32 target = stack_peek(cpu, in, s.bits, 0);
    set_stack_pointer(cpu, cpu->state.gpr[ESP] + s.bits / 8 + in->immediate);
    cpu->state.eip = target;
}

BODY void op_nop(CONTEXT) {
}

BODY void op_pause(CONTEXT) {
}

#endif
