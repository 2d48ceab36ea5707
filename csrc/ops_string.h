/*
 * ops_string.h - bodies of MOVS, STOS, LODS, CMPS, SCAS, alone and repeated.
 *
 * A repeat is taken in pieces: as many elements as lie in a page and as ticks are left, at memory
 * speed where plain memory is reached upwards in flat segments, else one element at a time. Each
 * piece updates ECX, ESI and EDI before the next can fault, so the instruction restarts where it
 * was. Every iteration is a tick; INS and OUTS (io.c) end in the same `end_repeat`.
 */
#ifndef SEVENTEEN_OPS_STRING_H
#define SEVENTEEN_OPS_STRING_H

#include "isa_cost.h"
#include "ops_arith.h"

BODY u32 address_bits(const Insn *in) {
    return in->flags & INSN_ADDR16 ? 16 : 32;
}

BODY bool is_repeated(const Insn *in) {
    return in->flags & (INSN_REP | INSN_REPNE);
}

/* Move ESI or EDI on by `count` elements, in the direction of DF. */
BODY void string_advance(Cpu *cpu, const Insn *in, u32 gpr, u32 size, u32 count) {
    u32 by = cpu->state.eflags & FLAG_DF ? 0 - size * count : size * count;
    set_gpr(cpu, gpr, address_bits(in), cpu->state.gpr[gpr] + by);
}

/* Linear address of the element at ESI in the (overridden) data segment, or at ES:EDI. */
BODY u32 source_linear(Cpu *cpu, const Insn *in, u32 size) {
    return segment_linear(cpu, in->segment, get_gpr(cpu, ESI, address_bits(in)), size, false);
}

BODY u32 destination_linear(Cpu *cpu, const Insn *in, u32 size, bool write) {
    return segment_linear(cpu, SEG_ES, get_gpr(cpu, EDI, address_bits(in)), size, write);
}

/* Elements that a bulk step may take at offset gpr without leaving its page; 0: no bulk. */
BODY u32 bulk_room(const Cpu *cpu, const Insn *in, u32 segment, u32 gpr, u32 size, u32 most) {
    u32 room = (PAGE_SIZE - (cpu->state.gpr[gpr] & PAGE_MASK)) / size;
    if (!(cpu->mode & MODE_FLAT) || in->flags & INSN_ADDR16 || cpu->state.eflags & FLAG_DF)
        return 0;
    if (segment == SEG_FS || segment == SEG_GS || segment == SEG_CS) return 0;
    if ((cpu->state.gpr[gpr] | PAGE_MASK) > cpu->state.seg[segment].limit) return 0;
    return room < most ? room : most;
}

/* One piece of a repeated instruction: at most `most` elements, at least one; returns how many. */
typedef u32 (*RepeatStep)(Cpu *cpu, const Insn *in, u32 size, u32 most);

/* Run a repeat until ECX, the ticks or `finished` end it, and set EIP accordingly. */
BODY void repeat(Cpu *cpu, const Insn *in, u32 size, RepeatStep step, bool compares) {
    u32 bits = address_bits(in), count = get_gpr(cpu, ECX, bits), done = 0;
    i64 budget = ticks_left(cpu) + 1;
    bool finished = count == 0;
    while (!finished && budget > 0 && !cpu->stop_pending) {
        u32 piece = step(cpu, in, size, (i64)count < budget ? count : (u32)budget);
        count -= piece;
        budget -= piece;
        done += piece;
        set_gpr(cpu, ECX, bits, count);
        retire_iterations(cpu, piece);
        cpu->state.cycle += (u64)piece * COST_ITERATION;
        finished = count == 0 || (compares && flag_zf(cpu) != ((in->flags & INSN_REP) != 0));
    }
    end_repeat(cpu, done > 0, finished);
}

BODY u32 step_stos(Cpu *cpu, const Insn *in, u32 size, u32 most) {
    u32 room = bulk_room(cpu, in, SEG_ES, EDI, size, most), value = cpu->state.gpr[EAX];
    u8 *to = room > 1 ? bulk_pointer(cpu, cpu->state.gpr[EDI], true) : NULL;
    if (to == NULL) {
        store(cpu, in, destination_linear(cpu, in, size, true), size, value);
        room = 1;
    } else if (size == 1 ||
               (value & 0xFF) * 0x01010101u == (size == 4 ? value : value * 0x10001u)) {
        memset(to, (int)(value & 0xFF), (size_t)room * size);
    } else {
        for (u32 i = 0; i < room; i++) host_store(to + i * size, size, value);
    }
    string_advance(cpu, in, EDI, size, room);
    return room;
}

/* Two pages that would push each other out of a processor's TLB, walked anew for each element. */
BODY bool tlb_thrashes(const Cpu *cpu, u32 a, u32 b) {
    return (cpu->state.cr0 & CR0_PG) && PAGE_OF(a ^ b) && !(((a ^ b) >> 12) & (TLB_SIZE - 1));
}

BODY u32 step_movs(Cpu *cpu, const Insn *in, u32 size, u32 most) {
    u32 room = bulk_room(cpu, in, in->segment, ESI, size, most);
    u8 *from = NULL, *to = NULL;
    room = bulk_room(cpu, in, SEG_ES, EDI, size, room);
    if (tlb_thrashes(cpu, cpu->state.gpr[ESI], cpu->state.gpr[EDI])) room = 1;
    if (room > 1) from = bulk_pointer(cpu, cpu->state.gpr[ESI], false);
    if (from != NULL) to = bulk_pointer(cpu, cpu->state.gpr[EDI], true);
    if (to == NULL) {
        u32 value = load(cpu, in, source_linear(cpu, in, size), size);
        store(cpu, in, destination_linear(cpu, in, size, true), size, value);
        room = 1;
    } else if (to + room * size <= from || from + room * size <= to) {
        memcpy(to, from, (size_t)room * size);
    } else { /* an overlap repeats what has just been written */
        for (u32 i = 0; i < room; i++)
            host_store(to + i * size, size, host_load(from + i * size, size));
    }
    string_advance(cpu, in, ESI, size, room);
    string_advance(cpu, in, EDI, size, room);
    return room;
}

BODY u32 step_lods(Cpu *cpu, const Insn *in, u32 size, UNUSED u32 most) {
    set_gpr(cpu, EAX, size * 8, load(cpu, in, source_linear(cpu, in, size), size));
    string_advance(cpu, in, ESI, size, 1);
    return 1;
}

BODY u32 step_cmps(Cpu *cpu, const Insn *in, u32 size, UNUSED u32 most) {
    /* ES:EDI first: where both fault, that is the one silicon reports. */
    u32 b = load(cpu, in, destination_linear(cpu, in, size, false), size);
    u32 a = load(cpu, in, source_linear(cpu, in, size), size);
    op_cmp(cpu, in, (Shape){(u8)(size * 8), FORM_REG, true}, a, b);
    string_advance(cpu, in, ESI, size, 1);
    string_advance(cpu, in, EDI, size, 1);
    return 1;
}

BODY u32 step_scas(Cpu *cpu, const Insn *in, u32 size, UNUSED u32 most) {
    u32 b = load(cpu, in, destination_linear(cpu, in, size, false), size);
    op_cmp(cpu, in, (Shape){(u8)(size * 8), FORM_REG, true}, get_gpr(cpu, EAX, size * 8), b);
    string_advance(cpu, in, EDI, size, 1);
    return 1;
}

#define STRING_BODY(name, compares)                             \
    BODY void op_##name(CONTEXT) {                              \
        if (is_repeated(in))                                    \
            repeat(cpu, in, s.bits / 8, step_##name, compares); \
        else                                                    \
            step_##name(cpu, in, s.bits / 8, 1);                \
    }

STRING_BODY(movs, false)
STRING_BODY(stos, false)
STRING_BODY(lods, false)
STRING_BODY(cmps, true)
STRING_BODY(scas, true)

#endif
