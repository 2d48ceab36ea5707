/*
 * cut.c - segments that are flat but for their end.
 *
 * A hypervisor keeps the top of linear space to itself: its guests' segments start at 0 and end
 * somewhat below 4 GiB. Such code must run as fast as flat code, so flat forms and chained blocks
 * have to hold without a limit check at each access. They do: an end is set in the TLB, and pages
 * past it are filed under guarded tags (tlb.h), which the inlined comparison never meets. What goes
 * there takes the slow path, and that one looks at the limit of the very segment it used.
 *
 * Each privilege has an end for data and one for fetches, of its own tables. It is never above what
 * the flat segments in use reach; run.c lowers it when one is loaded that reaches less, and lets it
 * rise again between runs. Where it stands changes speed alone: cycles and saved states do not know
 * of it. Read memory.c next.
 */
#include "cut.h"
#include "tlb.h"

/* Segments that end lower than this are limited like any other: below lie the guest's own pages. */
#define LEAST_END 0xBFFFFFFFu

static u32 reach(const Segment *segment) {
    u32 limit = segment->limit;
    return segment->base == 0 && limit >= LEAST_END && (limit & PAGE_MASK) == PAGE_MASK ? limit : 0;
}

static u32 data_reach(const Segment *segment) {
    u32 wanted = ATTR_PRESENT | ATTR_CODE_OR_DATA | ATTR_WRITABLE;
    u32 forbidden = ATTR_CODE | ATTR_EXPAND_DOWN | ATTR_UNUSABLE;
    return (segment->attributes & (wanted | forbidden)) == wanted ? reach(segment) : 0;
}

u32 flat_data_end(const CpuState *state) {
    u32 end = data_reach(&state->seg[SEG_DS]);
    u32 es = data_reach(&state->seg[SEG_ES]), ss = data_reach(&state->seg[SEG_SS]);
    if (es < end) end = es;
    return ss < end ? ss : end;
}

u32 flat_code_end(const CpuState *state) {
    return reach(&state->seg[SEG_CS]);
}

static u32 refiled(u32 tag, u32 end) {
    return tag == ~0u ? tag : filed_tag(plain_tag(tag), end);
}

void cut_data(Cpu *cpu, u32 space, u32 end) {
    cpu->data_end[space] = end;
    for (u32 i = 0; i < TLB_SIZE; i++) {
        TlbEntry *entry = &cpu->tlbs[space][i];
        entry->read_tag = refiled(entry->read_tag, end);
        entry->write_tag = refiled(entry->write_tag, end);
    }
}

void cut_code(Cpu *cpu, u32 space, u32 end) {
    cpu->code_end[space] = end;
    for (u32 i = 0; i < TLB_SIZE; i++) {
        CodeTlbEntry *entry = &cpu->code_tlbs[space][i];
        entry->tag = refiled(entry->tag, end);
    }
}

void cut_raise(Cpu *cpu) {
    u32 space = cpu->state.cpl == 3;
    u32 data = flat_data_end(&cpu->state), code = flat_code_end(&cpu->state);
    if (unlikely(data > cpu->data_end[space])) cut_data(cpu, space, data);
    if (unlikely(code > cpu->code_end[space])) cut_code(cpu, space, code);
}

void cut_none(Cpu *cpu) {
    for (u32 space = 0; space < TLB_SPACES; space++) {
        cut_data(cpu, space, ~0u);
        cut_code(cpu, space, ~0u);
    }
}
