/*
 * ops_bits.h - bodies of the bit tests and scans.
 *
 * With a register as bit offset, a memory operand is a bit string: the offset is signed and reaches
 * beyond the addressed element (SDM vol. 2, BT). An immediate offset stays within it.
 */
#ifndef SEVENTEEN_OPS_BITS_H
#define SEVENTEEN_OPS_BITS_H

#include "ops_data.h"

enum bit_operation { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

/* CF is the bit; ZF, and with it SF and PF, are kept; AF and OF are undefined. */
BODY u32 bit_change(Cpu *cpu, Shape s, u32 value, u32 offset, enum bit_operation operation) {
    u32 bit = 1u << (offset & (s.bits - 1u));
    flags_change(cpu, FLAG_CF | FLAG_AF | FLAG_OF, value & bit ? FLAG_CF : 0);
    switch (operation) {
    case BIT_SET: return value | bit;
    case BIT_RESET: return value & ~bit;
    case BIT_COMPLEMENT: return value ^ bit;
    default: return value;
    }
}

BODY void bit_operate(CONTEXT, u32 offset, bool string, enum bit_operation operation) {
    u32 size = s.bits / 8, linear, value;
    bool write = operation != BIT_TEST;
    if (s.form == FORM_REG) {
        value = bit_change(cpu, s, get_reg(cpu, in->rm, s.bits), offset, operation);
        if (write) set_reg(cpu, in->rm, s.bits, value);
        return;
    }
    u32 address = effective_address(cpu, in);
    if (string) address += (u32)((s.bits == 32 ? (i32)offset >> 5 : (i16)offset >> 4) * (i32)size);
    if (in->flags & INSN_ADDR16) address &= 0xFFFF;
    linear = segment_linear(cpu, in->segment, address, size, write);
    value = write ? load_update(cpu, in, linear, size) : load(cpu, in, linear, size);
    value = bit_change(cpu, s, value, offset, operation);
    if (write) store(cpu, in, linear, size, value);
}

#define BIT_BODIES(name, operation)                                              \
    BODY void op_##name(CONTEXT) {                                               \
        bit_operate(cpu, in, s, get_reg(cpu, in->reg, s.bits), true, operation); \
    }                                                                            \
    BODY void op_##name##_imm(CONTEXT) {                                         \
        bit_operate(cpu, in, s, in->immediate, false, operation);                \
    }

BIT_BODIES(bt, BIT_TEST)
BIT_BODIES(bts, BIT_SET)
BIT_BODIES(btr, BIT_RESET)
BIT_BODIES(btc, BIT_COMPLEMENT)

/* ZF says that the source was zero; then the destination keeps its value, as processors do. The
   other flags are undefined: here those of the source. */
BODY u32 op_bsf(CONTEXT, u32 old, u32 source) {
    flags_raw(cpu, s, source, 0);
    return source ? (u32)__builtin_ctz(source) : old;
}

BODY u32 op_bsr(CONTEXT, u32 old, u32 source) {
    flags_raw(cpu, s, source, 0);
    return source ? 31 - (u32)__builtin_clz(source) : old;
}

#endif
