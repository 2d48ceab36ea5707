/*
 * segment.c - descriptors, segment registers, and the address of a memory operand.
 *
 * A segment register keeps its descriptor as it was when loaded (SDM vol. 3, 3.4.3); tables are
 * read again only by the next load. The order of checks is the SDM's (vol. 2, MOV; vol. 3, 5.5 to
 * 5.7): which fault a bad selector raises is architecture. Read transfer.c next, then far.c.
 */
#include "transfer.h"

static const Segment null_segment = {0, ATTR_UNUSABLE, 0, 0};

/* The linear address of a selector's descriptor; false if it lies outside its table. */
static bool descriptor_address(const Cpu *cpu, u32 selector, u32 *linear) {
    const Segment *ldt = &cpu->state.ldtr;
    u32 offset = selector & 0xFFF8;
    bool local = (selector & SELECTOR_TI) != 0;
    u32 limit = local ? ldt->limit : cpu->state.gdtr.limit;
    if (local && (ldt->attributes & ATTR_UNUSABLE)) return false;
    *linear = (local ? ldt->base : cpu->state.gdtr.base) + offset;
    return offset + 7 <= limit;
}

static Descriptor read_descriptor(Cpu *cpu, u32 linear) {
    Descriptor d;
    d.linear = linear;
    d.low = load_system(cpu, linear, 4);
    d.high = load_system(cpu, linear + 4, 4);
    return d;
}

Descriptor fetch_descriptor_ext(Cpu *cpu, u32 selector, u32 vector, u32 ext) {
    u32 linear;
    if (!descriptor_address(cpu, selector, &linear))
        raise_error(cpu, vector, (selector & 0xFFFC) | ext);
    return read_descriptor(cpu, linear);
}

Descriptor fetch_descriptor(Cpu *cpu, u32 selector, u32 vector) {
    return fetch_descriptor_ext(cpu, selector, vector, 0);
}

bool fetch_descriptor_quietly(Cpu *cpu, u32 selector, Descriptor *descriptor) {
    u32 linear;
    if (is_null(selector) || !descriptor_address(cpu, selector, &linear)) return false;
    *descriptor = read_descriptor(cpu, linear);
    return true;
}

Segment segment_of(u32 selector, Descriptor d) {
    Segment segment;
    u32 limit = (d.low & 0xFFFF) | (d.high & 0xF0000);
    segment.selector = selector & 0xFFFF;
    segment.attributes = d.high >> 8 & 0xF0FF; /* less the limit's bits 16-19 */
    segment.base = d.low >> 16 | (d.high & 0xFF) << 16 | (d.high & 0xFF000000);
    segment.limit = segment.attributes & ATTR_GRANULARITY ? limit << 12 | 0xFFF : limit;
    return segment;
}

void mark_accessed(Cpu *cpu, Descriptor *descriptor) {
    if (descriptor->high & HIGH_ACCESSED) return;
    descriptor->high |= HIGH_ACCESSED;
    store_system(cpu, descriptor->linear + 4, 4, descriptor->high);
}

/* SS takes a present, writable data segment of exactly this privilege level. */
static Segment checked_stack(Cpu *cpu, u32 selector) {
    u32 cpl = cpu->state.cpl;
    Descriptor d;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, 0);
    d = fetch_descriptor(cpu, selector, VECTOR_GP);
    if ((selector & SELECTOR_RPL) != cpl || !is_writable_data(d) || descriptor_dpl(d) != cpl)
        raise_error(cpu, VECTOR_GP, selector & 0xFFFC);
    if (!is_present(d)) raise_error(cpu, VECTOR_SS, selector & 0xFFFC);
    mark_accessed(cpu, &d);
    return segment_of(selector, d);
}

/* DS, ES, FS, GS take what may be read and is no more privileged than CPL and RPL. */
static Segment checked_data(Cpu *cpu, u32 selector) {
    u32 dpl;
    Descriptor d = fetch_descriptor(cpu, selector, VECTOR_GP);
    dpl = descriptor_dpl(d);
    if (!is_readable(d)) raise_error(cpu, VECTOR_GP, selector & 0xFFFC);
    if (!is_conforming(d) && ((selector & SELECTOR_RPL) > dpl || cpu->state.cpl > dpl))
        raise_error(cpu, VECTOR_GP, selector & 0xFFFC);
    if (!is_present(d)) raise_error(cpu, VECTOR_NP, selector & 0xFFFC);
    mark_accessed(cpu, &d);
    return segment_of(selector, d);
}

void load_segment(Cpu *cpu, u32 segment, u32 selector) {
    Segment loaded;
    selector &= 0xFFFF;
    if (segment == SEG_SS) {
        loaded = checked_stack(cpu, selector);
    } else if (is_null(selector)) {
        loaded = null_segment;
        loaded.selector = selector;
    } else {
        loaded = checked_data(cpu, selector);
    }
    cpu->state.seg[segment] = loaded;
    refresh_mode(cpu);
}

bool within_limit(const Segment *segment, u32 offset, u32 size) {
    u32 last = offset + size - 1;
    u32 limit = segment->limit;
    bool down = (segment->attributes & (ATTR_CODE | ATTR_EXPAND_DOWN)) == ATTR_EXPAND_DOWN;
    if (down) {
        u32 top = segment->attributes & ATTR_BIG ? 0xFFFFFFFFu : 0xFFFF;
        return offset > limit && last >= offset && last <= top;
    }
    /* Not even a flat segment lets an access run on from its end to its start. */
    return last >= offset && last <= limit;
}

void check_alignment(Cpu *cpu, u32 linear, u32 size) {
    bool natural = (size & (size - 1)) == 0;
    if (likely(!(cpu->state.eflags & FLAG_AC)) || !checks_alignment(&cpu->state)) return;
    if (natural && (linear & (size - 1))) raise_error(cpu, VECTOR_AC, 0);
}

u32 segment_linear(Cpu *cpu, u32 number, u32 offset, u32 size, bool write) {
    const Segment *segment = &cpu->state.seg[number];
    u32 attributes = segment->attributes;
    bool code = (attributes & ATTR_CODE) != 0;
    /* Bit 1 is "writable" of data and "readable" of code. */
    bool allowed =
        write ? !code && (attributes & ATTR_WRITABLE) : !code || (attributes & ATTR_READABLE);
    if (unlikely((attributes & ATTR_UNUSABLE) || !allowed || !within_limit(segment, offset, size)))
        raise_error(cpu, number == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
    check_alignment(cpu, segment->base + offset, size);
    return segment->base + offset;
}

void refuse_code16(Cpu *cpu, Descriptor code) {
    if (!(code.high & HIGH_BIG)) leave_unsupported(cpu, UNSUPPORTED_CODE16);
}

void set_code_segment(Cpu *cpu, u32 selector, Descriptor descriptor, u32 cpl) {
    refuse_code16(cpu, descriptor);
    cpu->state.seg[SEG_CS] = segment_of((selector & 0xFFFC) | cpl, descriptor);
    set_cpl(cpu, cpl);
}
