/*
 * flags.h - lazy flags, all of them.
 *
 * Most flags are overwritten unread, so an instruction does not compute them: it leaves its
 * operands and result in cpu->lazy, and whoever wants a flag works it out. Three choices make that
 * cheap:
 *
 *   - `result` alone yields ZF, SF and PF, whatever the instruction was. It is 64 bits wide so that
 *     it can also stand for combinations no result has (ZF=1 with SF=1, as POPF may load): ZF is
 *     "the low 32 bits are zero", SF is bit 63, PF is the parity of byte 0 xor byte 4. A result
 *     sign-extended from its size has 00 or FF in byte 4, both even, and so reads as itself.
 *   - CF, OF and AF come from `kind`: for an addition or subtraction from its operands a and b (INC
 *     and DEC keep the old CF in b), otherwise (LAZY_RAW) they stand in `a` as EFLAGS has them.
 *   - An instruction whose flags block.c proved dead has Shape.flags false and stores nothing.
 *
 * While blocks run, the arithmetic bits of state.eflags are stale; flags_get makes the exact value
 * at any instruction, and run.c stores it back before cpu_run returns.
 */
#ifndef SEVENTEEN_FLAGS_H
#define SEVENTEEN_FLAGS_H

#include "cpu.h"

enum lazy_kind {
    LAZY_RAW,
    LAZY_ADD8,
    LAZY_ADD16,
    LAZY_ADD32,
    LAZY_SUB8,
    LAZY_SUB16,
    LAZY_SUB32,
    LAZY_INC8, /* of these a is the operand, b the CF that stays */
    LAZY_INC16,
    LAZY_INC32,
    LAZY_DEC8,
    LAZY_DEC16,
    LAZY_DEC32
};

/* `value` of `bits` bits, sign-extended. */
INLINE i64 sign_extend(u32 value, unsigned bits) {
    return bits == 8 ? (i8)value : bits == 16 ? (i16)value : (i32)value;
}

INLINE u32 size_mask(unsigned bits) {
    return bits == 32 ? 0xFFFFFFFFu : (1u << bits) - 1;
}

/* The kind for an operand size, given the one for 8 bits. */
INLINE u32 lazy_kind_of(u32 kind8, unsigned bits) {
    return bits == 8 ? kind8 : bits == 16 ? kind8 + 1 : kind8 + 2;
}

INLINE bool flag_zf(const Cpu *cpu) {
    return (u32)cpu->lazy.result == 0;
}

INLINE bool flag_sf(const Cpu *cpu) {
    return cpu->lazy.result < 0;
}

INLINE bool flag_pf(const Cpu *cpu) {
    u64 result = (u64)cpu->lazy.result;
    return !(__builtin_popcount((unsigned)((result ^ (result >> 32)) & 0xFF)) & 1);
}

INLINE bool flag_cf(const Cpu *cpu) {
    u32 a = cpu->lazy.a, b = cpu->lazy.b;
    switch (cpu->lazy.kind) {
    case LAZY_RAW: return a & FLAG_CF;
    case LAZY_ADD8: return (a + b) >> 8 & 1;
    case LAZY_ADD16: return (a + b) >> 16 & 1;
    case LAZY_ADD32: return a + b < a;
    case LAZY_SUB8:
    case LAZY_SUB16:
    case LAZY_SUB32: return a < b;
    default: return b;
    }
}

/* OF of an addition: operands of one sign, a result of the other. Of a subtraction: operands of
   two signs, a result not of the first one's. */
INLINE bool overflow_add(u32 a, u32 b, u32 result, unsigned bits) {
    return (~(a ^ b) & (a ^ result)) >> (bits - 1) & 1;
}

INLINE bool overflow_sub(u32 a, u32 b, u32 result, unsigned bits) {
    return ((a ^ b) & (a ^ result)) >> (bits - 1) & 1;
}

INLINE bool flag_of(const Cpu *cpu) {
    u32 a = cpu->lazy.a, b = cpu->lazy.b;
    switch (cpu->lazy.kind) {
    case LAZY_ADD8: return overflow_add(a, b, a + b, 8);
    case LAZY_ADD16: return overflow_add(a, b, a + b, 16);
    case LAZY_ADD32: return overflow_add(a, b, a + b, 32);
    case LAZY_SUB8: return overflow_sub(a, b, a - b, 8);
    case LAZY_SUB16: return overflow_sub(a, b, a - b, 16);
    case LAZY_SUB32: return overflow_sub(a, b, a - b, 32);
    case LAZY_INC8: return a == 0x7F;
    case LAZY_INC16: return a == 0x7FFF;
    case LAZY_INC32: return a == 0x7FFFFFFF;
    case LAZY_DEC8: return a == 0x80;
    case LAZY_DEC16: return a == 0x8000;
    case LAZY_DEC32: return a == 0x80000000u;
    default: return (a & FLAG_OF) != 0;
    }
}

INLINE bool flag_af(const Cpu *cpu) {
    if (cpu->lazy.kind == LAZY_RAW) return (cpu->lazy.a & FLAG_AF) != 0;
    if (cpu->lazy.kind >= LAZY_INC8)
        return ((cpu->lazy.a ^ 1 ^ (u32)cpu->lazy.result) & FLAG_AF) != 0;
    return ((cpu->lazy.a ^ cpu->lazy.b ^ (u32)cpu->lazy.result) & FLAG_AF) != 0;
}

/* SF != OF: "less" after a comparison. */
INLINE bool flag_less(const Cpu *cpu) {
    if (likely(cpu->lazy.kind == LAZY_SUB32)) return (i32)cpu->lazy.a < (i32)cpu->lazy.b;
    return flag_sf(cpu) != flag_of(cpu);
}

/* The condition of Jcc, SETcc, CMOVcc (SDM vol. 1, appendix B). */
INLINE bool condition(const Cpu *cpu, unsigned cc) {
    bool holds = false;
    switch (cc >> 1) {
    case 0: holds = flag_of(cpu); break;
    case 1: holds = flag_cf(cpu); break;
    case 2: holds = flag_zf(cpu); break;
    case 3: holds = flag_zf(cpu) || flag_cf(cpu); break;
    case 4: holds = flag_sf(cpu); break;
    case 5: holds = flag_pf(cpu); break;
    case 6: holds = flag_less(cpu); break;
    case 7: holds = flag_zf(cpu) || flag_less(cpu); break;
    }
    return holds != (cc & 1);
}

INLINE void flags_add(Cpu *cpu, Shape s, u32 a, u32 b, u32 result) {
    if (!s.flags) return;
    cpu->lazy.result = sign_extend(result, s.bits);
    cpu->lazy.a = a;
    cpu->lazy.b = b;
    cpu->lazy.kind = lazy_kind_of(LAZY_ADD8, s.bits);
}

INLINE void flags_sub(Cpu *cpu, Shape s, u32 a, u32 b, u32 result) {
    if (!s.flags) return;
    cpu->lazy.result = sign_extend(result, s.bits);
    cpu->lazy.a = a;
    cpu->lazy.b = b;
    cpu->lazy.kind = lazy_kind_of(LAZY_SUB8, s.bits);
}

/* INC or DEC, by the kind for 8 bits; CF stays. */
INLINE void flags_count(Cpu *cpu, Shape s, u32 kind8, u32 a, u32 result) {
    if (!s.flags) return;
    cpu->lazy.b = flag_cf(cpu);
    cpu->lazy.a = a;
    cpu->lazy.result = sign_extend(result, s.bits);
    cpu->lazy.kind = lazy_kind_of(kind8, s.bits);
}

/* ZF, SF, PF by the result, and CF, AF, OF as given: EFLAGS bits. Zero suits AND, OR, XOR, TEST. */
INLINE void flags_raw(Cpu *cpu, Shape s, u32 result, u32 carry_adjust_overflow) {
    if (!s.flags) return;
    cpu->lazy.result = sign_extend(result, s.bits);
    cpu->lazy.a = carry_adjust_overflow;
    cpu->lazy.kind = LAZY_RAW;
}

/* The six arithmetic flags, exact, in their places. */
INLINE u32 flags_arithmetic(const Cpu *cpu) {
    return (flag_cf(cpu) ? FLAG_CF : 0) | (flag_pf(cpu) ? FLAG_PF : 0) |
           (flag_af(cpu) ? FLAG_AF : 0) | (flag_zf(cpu) ? FLAG_ZF : 0) |
           (flag_sf(cpu) ? FLAG_SF : 0) | (flag_of(cpu) ? FLAG_OF : 0);
}

/* Replace the arithmetic flags by explicit ones. */
INLINE void flags_set_arithmetic(Cpu *cpu, u32 flags) {
    u64 low = flags & FLAG_ZF ? 0 : 1;
    u64 parity = (low ^ (flags & FLAG_PF ? 0 : 1)) << 32;
    u64 sign = (u64)(flags & FLAG_SF ? 1 : 0) << 63;
    cpu->lazy.result = (i64)(low | parity | sign);
    cpu->lazy.a = flags & (FLAG_CF | FLAG_AF | FLAG_OF);
    cpu->lazy.kind = LAZY_RAW;
}

/* Set or clear some of CF, OF, AF and keep the other arithmetic flags; the result stands. */
INLINE void flags_change(Cpu *cpu, u32 mask, u32 value) {
    u32 flags = value & mask;
    if (!(mask & FLAG_CF)) flags |= flag_cf(cpu) ? FLAG_CF : 0;
    if (!(mask & FLAG_AF)) flags |= flag_af(cpu) ? FLAG_AF : 0;
    if (!(mask & FLAG_OF)) flags |= flag_of(cpu) ? FLAG_OF : 0;
    cpu->lazy.a = flags;
    cpu->lazy.kind = LAZY_RAW;
}

/* All of EFLAGS. */
INLINE u32 flags_get(const Cpu *cpu) {
    return (cpu->state.eflags & ~(u32)FLAG_ARITHMETIC) | flags_arithmetic(cpu) | FLAG_ONE;
}

INLINE void flags_set(Cpu *cpu, u32 eflags) {
    cpu->state.eflags = eflags | FLAG_ONE;
    flags_set_arithmetic(cpu, eflags);
}

#endif
