/*
 * ops_logic.h - bodies of logic, shifts and rotates.
 *
 * A masked shift count of zero leaves the flags alone (SDM vol. 2, SAL/SAR/SHL/SHR); where a flag is
 * undefined, the table's column says so and what stands here is one choice.
 */
#ifndef SEVENTEEN_OPS_LOGIC_H
#define SEVENTEEN_OPS_LOGIC_H

#include "ops_data.h"

BODY u32 op_and(CONTEXT, u32 a, u32 b) {
    flags_raw(cpu, s, a & b, 0);
    return a & b;
}

BODY u32 op_or(CONTEXT, u32 a, u32 b) {
    flags_raw(cpu, s, a | b, 0);
    return a | b;
}

BODY u32 op_xor(CONTEXT, u32 a, u32 b) {
    flags_raw(cpu, s, a ^ b, 0);
    return a ^ b;
}

BODY void op_test(CONTEXT, u32 a, u32 b) {
    flags_raw(cpu, s, a & b, 0);
}

BODY u32 op_not(CONTEXT, u32 a) {
    return ~a;
}

BODY u32 top_bit(u32 value, unsigned bits) {
    return value >> (bits - 1) & 1;
}

BODY u32 op_shl(CONTEXT, u32 a, u32 count) {
    u64 wide;
    u32 carry;
    count &= 31;
    if (count == 0) return a;
    wide = (u64)a << count;
    carry = (u32)(wide >> s.bits) & 1;
    flags_raw(cpu, s, (u32)wide,
              (carry ? FLAG_CF : 0) | (carry != top_bit((u32)wide, s.bits) ? FLAG_OF : 0));
    return (u32)wide;
}

BODY u32 op_shr(CONTEXT, u32 a, u32 count) {
    u32 result;
    count &= 31;
    if (count == 0) return a;
    result = a >> count;
    flags_raw(cpu, s, result,
              (a >> (count - 1) & 1 ? FLAG_CF : 0) | (top_bit(a, s.bits) ? FLAG_OF : 0));
    return result;
}

BODY u32 op_sar(CONTEXT, u32 a, u32 count) {
    i64 value = sign_extend(a, s.bits);
    count &= 31;
    if (count == 0) return a;
    flags_raw(cpu, s, (u32)(value >> count), value >> (count - 1) & 1 ? FLAG_CF : 0);
    return (u32)(value >> count);
}

/* CF and OF of a rotate; the other flags stay. */
BODY void flags_rotate(CONTEXT, u32 carry, u32 overflow) {
    if (s.flags)
        flags_change(cpu, FLAG_CF | FLAG_OF, (carry ? FLAG_CF : 0) | (overflow ? FLAG_OF : 0));
}

BODY u32 op_rol(CONTEXT, u32 a, u32 count) {
    u32 turn = count & (s.bits - 1), result = a;
    if ((count & 31) == 0) return a;
    if (turn) result = (a << turn | a >> (s.bits - turn)) & size_mask(s.bits);
    flags_rotate(cpu, in, s, result & 1, (result & 1) ^ top_bit(result, s.bits));
    return result;
}

BODY u32 op_ror(CONTEXT, u32 a, u32 count) {
    u32 turn = count & (s.bits - 1), result = a;
    if ((count & 31) == 0) return a;
    if (turn) result = (a >> turn | a << (s.bits - turn)) & size_mask(s.bits);
    flags_rotate(cpu, in, s, top_bit(result, s.bits),
                 top_bit(result, s.bits) ^ (result >> (s.bits - 2) & 1));
    return result;
}

/* The rotates through carry turn a value of bits + 1 bits whose top is CF. */
BODY u32 op_rcl(CONTEXT, u32 a, u32 count) {
    u64 wide = (u64)flag_cf(cpu) << s.bits | a, mask = ((u64)1 << (s.bits + 1)) - 1;
    u32 turn = (count & 31) % (s.bits + 1u);
    if ((count & 31) == 0) return a;
    if (turn) wide = (wide << turn | wide >> (s.bits + 1 - turn)) & mask;
    flags_rotate(cpu, in, s, wide >> s.bits & 1,
                 (u32)(wide >> s.bits & 1) ^ top_bit((u32)wide, s.bits));
    return (u32)wide;
}

BODY u32 op_rcr(CONTEXT, u32 a, u32 count) {
    u64 wide = (u64)flag_cf(cpu) << s.bits | a, mask = ((u64)1 << (s.bits + 1)) - 1;
    u32 turn = (count & 31) % (s.bits + 1u), result;
    if ((count & 31) == 0) return a;
    if (turn) wide = (wide >> turn | wide << (s.bits + 1 - turn)) & mask;
    result = (u32)wide;
    flags_rotate(cpu, in, s, wide >> s.bits & 1,
                 top_bit(result, s.bits) ^ (result >> (s.bits - 2) & 1));
    return result;
}

/* With 16-bit operands a count above 16 is undefined: the bits of the destination come round. */
BODY u32 op_shld(CONTEXT, u32 a, u32 b, u32 count) {
    u64 wide = s.bits == 32 ? (u64)a << 32 | b : (u64)a << 48 | (u64)b << 32 | (u64)a << 16;
    u32 result;
    count &= 31;
    if (count == 0) return a;
    result = (u32)(wide << count >> (64 - s.bits));
    flags_raw(cpu, s, result,
              (wide >> (64 - count) & 1 ? FLAG_CF : 0) |
                  (top_bit(result, s.bits) != top_bit(a, s.bits) ? FLAG_OF : 0));
    return result;
}

BODY u32 op_shrd(CONTEXT, u32 a, u32 b, u32 count) {
    u64 wide = s.bits == 32 ? (u64)b << 32 | a : (u64)a << 32 | (u64)b << 16 | a;
    u32 result;
    count &= 31;
    if (count == 0) return a;
    result = (u32)(wide >> count) & size_mask(s.bits);
    flags_raw(cpu, s, result,
              (wide >> (count - 1) & 1 ? FLAG_CF : 0) |
                  (top_bit(result, s.bits) != top_bit(a, s.bits) ? FLAG_OF : 0));
    return result;
}

#endif
