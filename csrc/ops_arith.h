/*
 * ops_arith.h - bodies of arithmetic. Operands come zero-extended, results are cut when stored.
 */
#ifndef SEVENTEEN_OPS_ARITH_H
#define SEVENTEEN_OPS_ARITH_H

#include "ops_data.h"

BODY u32 op_add(CONTEXT, u32 a, u32 b) {
    u32 result = a + b;
    flags_add(cpu, s, a, b, result);
    return result;
}

BODY u32 op_sub(CONTEXT, u32 a, u32 b) {
    u32 result = a - b;
    flags_sub(cpu, s, a, b, result);
    return result;
}

BODY void op_cmp(CONTEXT, u32 a, u32 b) {
    flags_sub(cpu, s, a, b, a - b);
}

/* CF, AF, OF of an addition or subtraction with carry: bits of the carries out of each position. */
BODY u32 carry_flags(u32 carries, u32 overflow, unsigned bits) {
    return (carries >> (bits - 1) & 1 ? FLAG_CF : 0) | (carries & 8 ? FLAG_AF : 0) |
           (overflow ? FLAG_OF : 0);
}

BODY u32 op_adc(CONTEXT, u32 a, u32 b) {
    u32 result = a + b + flag_cf(cpu);
    u32 carries = (a & b) | ((a | b) & ~result);
    flags_raw(cpu, s, result, carry_flags(carries, overflow_add(a, b, result, s.bits), s.bits));
    return result;
}

BODY u32 op_sbb(CONTEXT, u32 a, u32 b) {
    u32 result = a - b - flag_cf(cpu);
    u32 borrows = (~a & b) | ((~a | b) & result);
    flags_raw(cpu, s, result, carry_flags(borrows, overflow_sub(a, b, result, s.bits), s.bits));
    return result;
}

BODY u32 op_inc(CONTEXT, u32 a) {
    flags_count(cpu, s, LAZY_INC8, a, a + 1);
    return a + 1;
}

BODY u32 op_dec(CONTEXT, u32 a) {
    flags_count(cpu, s, LAZY_DEC8, a, a - 1);
    return a - 1;
}

BODY u32 op_neg(CONTEXT, u32 a) {
    flags_sub(cpu, s, 0, a, 0 - a);
    return 0 - a;
}

/* Accumulator pair of DIV and MUL: AX, DX:AX or EDX:EAX. */
BODY u64 get_wide(const Cpu *cpu, unsigned bits) {
    if (bits == 8) return get_gpr(cpu, EAX, 16);
    return (u64)get_gpr(cpu, EDX, bits) << bits | get_gpr(cpu, EAX, bits);
}

BODY void set_wide(Cpu *cpu, unsigned bits, u64 value) {
    if (bits == 8) {
        set_gpr(cpu, EAX, 16, (u32)value);
    } else {
        set_gpr(cpu, EAX, bits, (u32)value);
        set_gpr(cpu, EDX, bits, (u32)(value >> bits));
    }
}

/* The multiplications set CF and OF when the high half matters; the rest is undefined. */
BODY void flags_product(CONTEXT, u32 low, bool wide) {
    flags_raw(cpu, s, low, wide ? FLAG_CF | FLAG_OF : 0);
}

BODY void op_mul(CONTEXT, u32 a) {
    u64 product = (u64)get_gpr(cpu, EAX, s.bits) * a;
    set_wide(cpu, s.bits, product);
    flags_product(cpu, in, s, (u32)product, product >> s.bits != 0);
}

BODY void op_imul_wide(CONTEXT, u32 a) {
    i64 product = sign_extend(get_gpr(cpu, EAX, s.bits), s.bits) * sign_extend(a, s.bits);
    set_wide(cpu, s.bits, (u64)product);
    flags_product(cpu, in, s, (u32)product, product != sign_extend((u32)product, s.bits));
}

BODY u32 op_imul(CONTEXT, u32 a, u32 b) {
    i64 product = sign_extend(a, s.bits) * sign_extend(b, s.bits);
    flags_product(cpu, in, s, (u32)product, product != sign_extend((u32)product, s.bits));
    return (u32)product;
}

/* A quotient that does not fit is #DE, as is a zero divisor. Flags are undefined: kept. */
BODY void op_div(CONTEXT, u32 divisor) {
    u64 dividend = get_wide(cpu, s.bits), quotient;
    if (divisor == 0) raise_fault(cpu, VECTOR_DE);
    quotient = dividend / divisor;
    if (quotient > size_mask(s.bits)) raise_fault(cpu, VECTOR_DE);
    if (s.bits == 8) {
        set_gpr(cpu, EAX, 16, (u32)(dividend % divisor) << 8 | (u32)quotient);
    } else {
        set_gpr(cpu, EAX, s.bits, (u32)quotient);
        set_gpr(cpu, EDX, s.bits, (u32)(dividend % divisor));
    }
}

BODY void op_idiv(CONTEXT, u32 operand) {
    i64 divisor = sign_extend(operand, s.bits), dividend, quotient, remainder;
    u64 wide = get_wide(cpu, s.bits);
    dividend = s.bits == 8 ? (i16)wide : s.bits == 16 ? (i32)wide : (i64)wide;
    if (divisor == 0) raise_fault(cpu, VECTOR_DE);
    if (divisor == -1 && dividend == INT64_MIN) raise_fault(cpu, VECTOR_DE);
    quotient = dividend / divisor;
    remainder = dividend % divisor;
    if (quotient != sign_extend((u32)quotient, s.bits)) raise_fault(cpu, VECTOR_DE);
    if (s.bits == 8) {
        set_gpr(cpu, EAX, 16, (u32)(remainder & 0xFF) << 8 | (u32)(quotient & 0xFF));
    } else {
        set_gpr(cpu, EAX, s.bits, (u32)quotient);
        set_gpr(cpu, EDX, s.bits, (u32)remainder);
    }
}

/* ZF, SF, PF of AL, with CF and AF as given: the decimal adjustments. */
BODY void flags_decimal(CONTEXT, bool carry, bool adjust) {
    flags_raw(cpu, (Shape){8, FORM_REG, true}, cpu->state.gpr[EAX] & 0xFF,
              (carry ? FLAG_CF : 0) | (adjust ? FLAG_AF : 0));
}

BODY void op_daa(CONTEXT) {
    u32 al = get_gpr(cpu, EAX, 8), result = al;
    bool adjust = (al & 15) > 9 || flag_af(cpu);
    bool carry = al > 0x99 || flag_cf(cpu);
    if (adjust) result += 6;
    if (carry) result += 0x60;
    set_gpr(cpu, EAX, 8, result);
    flags_decimal(cpu, in, s, carry, adjust);
}

BODY void op_das(CONTEXT) {
    u32 al = get_gpr(cpu, EAX, 8), result = al;
    bool adjust = (al & 15) > 9 || flag_af(cpu);
    bool carry = al > 0x99 || flag_cf(cpu);
    bool borrow = carry || (adjust && al < 6);
    if (adjust) result -= 6;
    if (carry) result -= 0x60;
    set_gpr(cpu, EAX, 8, result);
    flags_decimal(cpu, in, s, borrow, adjust);
}

BODY void op_aaa(CONTEXT) {
    u32 ax = get_gpr(cpu, EAX, 16);
    bool adjust = (ax & 15) > 9 || flag_af(cpu);
    if (adjust) ax += 0x106;
    set_gpr(cpu, EAX, 16, ax & 0xFF0F);
    flags_decimal(cpu, in, s, adjust, adjust);
}

BODY void op_aas(CONTEXT) {
    u32 ax = get_gpr(cpu, EAX, 16);
    bool adjust = (ax & 15) > 9 || flag_af(cpu);
    if (adjust) ax -= 0x106;
    set_gpr(cpu, EAX, 16, ax & 0xFF0F);
    flags_decimal(cpu, in, s, adjust, adjust);
}

BODY void op_aam(CONTEXT, u32 base) {
    u32 al = get_gpr(cpu, EAX, 8);
    if (base == 0) raise_fault(cpu, VECTOR_DE);
    set_gpr(cpu, EAX, 16, (al / base) << 8 | al % base);
    flags_decimal(cpu, in, s, false, false);
}

BODY void op_aad(CONTEXT, u32 base) {
    u32 ax = get_gpr(cpu, EAX, 16);
    set_gpr(cpu, EAX, 16, ((ax >> 8) * base + (ax & 0xFF)) & 0xFF);
    flags_decimal(cpu, in, s, false, false);
}

BODY void op_xadd(CONTEXT, u32 *a, u32 *b) {
    u32 was = *a;
    *a = op_add(cpu, in, s, was, *b);
    *b = was;
}

BODY void op_cmpxchg(CONTEXT) {
    u32 size = s.bits / 8, accumulator = get_gpr(cpu, EAX, s.bits), linear = 0, old;
    if (s.form == FORM_REG) {
        old = get_reg(cpu, in->rm, s.bits);
    } else {
        linear = form_linear(cpu, in, s.form, size, true);
        old = load_update(cpu, in, linear, size);
    }
    op_cmp(cpu, in, s, accumulator, old);
    /* The destination is written either way: back with what it held if they differ. */
    u32 value = accumulator == old ? get_reg(cpu, in->reg, s.bits) : old;
    if (s.form == FORM_REG)
        set_reg(cpu, in->rm, s.bits, value);
    else
        store(cpu, in, linear, size, value);
    if (accumulator != old) set_gpr(cpu, EAX, s.bits, old);
}

BODY void op_cmpxchg8b(CONTEXT) {
    u32 linear = form_linear(cpu, in, s.form, 8, true);
    u32 low = load_update(cpu, in, linear, 4), high = load_update(cpu, in, linear + 4, 4);
    bool equal = low == cpu->state.gpr[EAX] && high == cpu->state.gpr[EDX];
    flags_set_arithmetic(cpu, (flags_arithmetic(cpu) & ~(u32)FLAG_ZF) | (equal ? FLAG_ZF : 0));
    store(cpu, in, linear, 4, equal ? cpu->state.gpr[EBX] : low);
    store(cpu, in, linear + 4, 4, equal ? cpu->state.gpr[ECX] : high);
    if (equal) return;
    cpu->state.gpr[EAX] = low;
    cpu->state.gpr[EDX] = high;
}

#endif
