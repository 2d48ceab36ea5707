/*
 * cut.c - segments that are flat but for their end.
 *
 * A hypervisor keeps the top of linear space to itself: its guests' segments start at 0 and end
 * somewhat below 4 GiB. Such code must run as fast as flat code, so flat forms and chained blocks
 * have to hold without a limit check at each access. They do: an end is set in the TLB, and pages
 * past it are filed under guarded tags (tlb.h), which the inlined comparison never meets. What goes
 * there takes the slow path, and that one looks at the limit of the very segment it used.
 *
 * Each privilege has an end, of its own table. It is never above what the flat segments in use
 * reach; run.c lowers it when one is loaded that reaches less, and lets it rise again between runs.
 * Where it stands changes speed alone: cycles and saved states do not know of it.
 *
 * Fetches need none of that: the mode word holds the page at which CS ends, so blocks belong to that
 * end, and chained blocks have been looked up, and so been checked, under it. Read memory.c next.
 */
#include "cut.h"
#include "tlb.h"

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

void cut_raise(Cpu *cpu) {
    u32 space = cpu->state.cpl == 3;
    u32 data = flat_data_end(&cpu->state);
    if (unlikely(data > cpu->data_end[space])) cut_data(cpu, space, data);
}

void cut_none(Cpu *cpu) {
    for (u32 space = 0; space < TLB_SPACES; space++) cut_data(cpu, space, ~0u);
}
