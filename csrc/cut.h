/*
 * cut.h - where flat segments end, and with them the pages that are reached without a limit check;
 * cut.c has the reasons.
 */
#ifndef SEVENTEEN_CUT_H
#define SEVENTEEN_CUT_H

#include "cpu.h"

/* Segments that end lower are limited like any other: their pages are the guest's own. */
#define LEAST_END 0xBFFFFFFFu

/* Where CS ends, if it is flat but for that and ends with a page; else 0. */
INLINE u32 flat_code_end(const CpuState *state) {
    const Segment *cs = &state->seg[SEG_CS];
    bool flat = cs->base == 0 && cs->limit >= LEAST_END && (cs->limit & PAGE_MASK) == PAGE_MASK;
    return flat ? cs->limit : 0;
}

/* The last byte that DS, ES and SS all reach, if they are so, and writable; else 0. */
INLINE u32 flat_data_end(const CpuState *state) {
    const Segment *ds = &state->seg[SEG_DS], *es = &state->seg[SEG_ES], *ss = &state->seg[SEG_SS];
    u32 wanted = ATTR_PRESENT | ATTR_CODE_OR_DATA | ATTR_WRITABLE;
    u32 forbidden = ATTR_CODE | ATTR_EXPAND_DOWN | ATTR_UNUSABLE;
    u32 lacking = ~(ds->attributes & es->attributes & ss->attributes) & wanted;
    u32 wrong = (ds->attributes | es->attributes | ss->attributes) & forbidden;
    u32 part = ~(ds->limit & es->limit & ss->limit) & PAGE_MASK;
    u32 end = ds->limit;
    if (unlikely((lacking | wrong | part | ds->base | es->base | ss->base) != 0)) return 0;
    if (unlikely(es->limit < end)) end = es->limit;
    if (unlikely(ss->limit < end)) end = ss->limit;
    return end >= LEAST_END ? end : 0;
}

/* Let the pages above `end` of one TLB space be guarded, and no others. */
void cut_data(Cpu *cpu, u32 space, u32 end);
/* Let the end of the current privilege rise to what its segments reach. */
void cut_raise(Cpu *cpu);
/* No page is guarded. */
void cut_none(Cpu *cpu);

#endif
