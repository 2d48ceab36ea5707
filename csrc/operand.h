/*
 * operand.h - where instructions find their operands: registers, memory operands, the stack.
 *
 * Generated code (isa/generate) calls these around the instruction bodies; a body that handles its
 * own operands calls them too. A register is a byte offset into CpuState.gpr. A memory operand is
 * reached by its form: FORM_BASE and FORM_INDEX are flat and cost an addition or two; FORM_FIXED is
 * a displacement alone, in a segment that is not flat; FORM_ANY takes every other case.
 */
#ifndef SEVENTEEN_OPERAND_H
#define SEVENTEEN_OPERAND_H

#include "tlb.h"

enum { NO_REGISTER = 8 * 4 };

INLINE u32 get_reg(const Cpu *cpu, u32 offset, u32 bits) {
    const u8 *at = (const u8 *)cpu->state.gpr + offset;
    u16 half;
    u32 word;
    switch (bits) {
    case 8: return *at;
    case 16: memcpy(&half, at, 2); return half;
    default: memcpy(&word, at, 4); return word;
    }
}

INLINE void set_reg(Cpu *cpu, u32 offset, u32 bits, u32 value) {
    u8 *at = (u8 *)cpu->state.gpr + offset;
    u16 half = (u16)value;
    switch (bits) {
    case 8: *at = (u8)value; break;
    case 16: memcpy(at, &half, 2); break;
    default: memcpy(at, &value, 4); break;
    }
}

/* The low 8 or 16 bits, or all, of a register by its number. */
INLINE u32 get_gpr(const Cpu *cpu, u32 number, u32 bits) {
    return cpu->state.gpr[number] & (bits == 32 ? 0xFFFFFFFFu : (1u << bits) - 1);
}

INLINE void set_gpr(Cpu *cpu, u32 number, u32 bits, u32 value) {
    u32 mask = bits == 32 ? 0xFFFFFFFFu : (1u << bits) - 1;
    cpu->state.gpr[number] = (cpu->state.gpr[number] & ~mask) | (value & mask);
}

/* Offset of the memory operand in its segment (SDM vol. 1, 3.7.5). */
INLINE u32 effective_address(const Cpu *cpu, const Insn *in) {
    u32 offset =
        get_reg(cpu, in->base, 32) + (get_reg(cpu, in->index, 32) << in->scale) + in->displacement;
    return in->flags & INSN_ADDR16 ? offset & 0xFFFF : offset;
}

/* Linear address of an offset in the operand's segment, checked for an access of `size` bytes: here
   if cpu->room says so, else by segment_linear. */
INLINE u32 offset_linear(Cpu *cpu, const Insn *in, u32 offset, u32 size, bool write) {
    cpu->current = in;
    if (likely((u64)offset + size <= cpu->room[in->segment]))
        return cpu->state.seg[in->segment].base + offset;
    return segment_linear(cpu, in->segment, offset, size, write);
}

/* The same of the memory operand. */
INLINE u32 operand_linear(Cpu *cpu, const Insn *in, u32 size, bool write) {
    return offset_linear(cpu, in, effective_address(cpu, in), size, write);
}

/* A part, `at` bytes on, of a memory operand that is read in several, each checked by itself. */
INLINE u32 load_part(Cpu *cpu, const Insn *in, u32 at, u32 size) {
    u32 offset = effective_address(cpu, in) + at;
    cpu->current = in;
    return load(cpu, in, segment_linear(cpu, in->segment, offset, size, false), size);
}

/* The same by form. FORM_BASE and FORM_INDEX occur only where the segments are flat. */
INLINE u32 form_linear(Cpu *cpu, const Insn *in, u32 form, u32 size, bool write) {
    switch (form) {
    case FORM_BASE: return get_reg(cpu, in->base, 32) + in->displacement;
    case FORM_INDEX:
        return get_reg(cpu, in->base, 32) + (get_reg(cpu, in->index, 32) << in->scale) +
               in->displacement;
    case FORM_FIXED: return offset_linear(cpu, in, in->displacement, size, write);
    default: return operand_linear(cpu, in, size, write);
    }
}

/* Offset by form, for LEA. */
INLINE u32 form_offset(const Cpu *cpu, const Insn *in, u32 form) {
    switch (form) {
    case FORM_BASE: return get_reg(cpu, in->base, 32) + in->displacement;
    case FORM_INDEX:
        return get_reg(cpu, in->base, 32) + (get_reg(cpu, in->index, 32) << in->scale) +
               in->displacement;
    default: return effective_address(cpu, in);
    }
}

/* The ModRM.rm operand of bodies that handle their own operands. */
INLINE u32 read_rm(Cpu *cpu, const Insn *in, Shape s) {
    if (s.form == FORM_REG) return get_reg(cpu, in->rm, s.bits);
    return load(cpu, in, form_linear(cpu, in, s.form, s.bits / 8, false), s.bits / 8);
}

INLINE void write_rm(Cpu *cpu, const Insn *in, Shape s, u32 value) {
    if (s.form == FORM_REG)
        set_reg(cpu, in->rm, s.bits, value);
    else
        store(cpu, in, form_linear(cpu, in, s.form, s.bits / 8, true), s.bits / 8, value);
}

/* -- The stack. SS.B chooses ESP or SP; in a flat mode word it is ESP, and stack_load and stack_store check. */

u32 stack_linear(Cpu *cpu, u32 pointer, u32 size, bool write);

INLINE u32 stack_mask(const Cpu *cpu) {
    return cpu->state.seg[SEG_SS].attributes & ATTR_BIG ? 0xFFFFFFFFu : 0xFFFF;
}

/* Set ESP, or SP under a 16-bit stack segment. */
INLINE void set_stack_pointer(Cpu *cpu, u32 value) {
    u32 mask = likely(cpu->mode & MODE_FLAT) ? 0xFFFFFFFFu : stack_mask(cpu);
    cpu->state.gpr[ESP] = (cpu->state.gpr[ESP] & ~mask) | (value & mask);
}

INLINE void stack_push(Cpu *cpu, const Insn *in, u32 bits, u32 value) {
    u32 pointer = cpu->state.gpr[ESP] - bits / 8;
    if (likely(cpu->mode & MODE_FLAT)) {
        stack_store(cpu, in, pointer, bits / 8, value);
        cpu->state.gpr[ESP] = pointer;
    } else {
        cpu->current = in;
        store(cpu, in, stack_linear(cpu, pointer, bits / 8, true), bits / 8, value);
        set_stack_pointer(cpu, pointer);
    }
}

/* The nth element from the top, without popping. */
INLINE u32 stack_peek(Cpu *cpu, const Insn *in, u32 bits, u32 nth) {
    u32 pointer = cpu->state.gpr[ESP] + nth * (bits / 8);
    if (unlikely(!(cpu->mode & MODE_FLAT))) {
        cpu->current = in;
        pointer = stack_linear(cpu, pointer, bits / 8, false);
    }
    return stack_load(cpu, in, pointer, bits / 8);
}

INLINE u32 stack_pop(Cpu *cpu, const Insn *in, u32 bits) {
    u32 value = stack_peek(cpu, in, bits, 0);
    set_stack_pointer(cpu, cpu->state.gpr[ESP] + bits / 8);
    return value;
}

#endif
