/*
 * paging.c - 32-bit paging (SDM vol. 3, 4.3) and the filling of the TLB.
 *
 * translate walks the tables and caches what the walk allows, so that tlb.h never has to ask: a
 * write tag stands only where a store needs no more than the store - page writable at this
 * privilege, dirty bit set already, plain memory, no debug register watching. All other accesses
 * come back here each time. A walk that faults changes nothing; accessed and dirty bits are set
 * when it has succeeded.
 *
 * A guest that changes its tables without a flush may see the old page, or the new one; but which,
 * must depend on its instructions alone, not on which blocks happen to be cached. So `walked` keeps
 * what a processor's TLB would hold, also where the tags are withheld: an access that it serves is
 * not walked again, and cycles are charged where it does not. Fetches have a TLB of their own.
 *
 * A flush is a new address-space id: entries of the old one match no more. Read memory.c next.
 */
#include "isa_cost.h"
#include "tlb.h"

enum {
    /* Reserved when CR4.PSE = 1, without PSE-36 and PAT (SDM vol. 3, 4.3). */
    LARGE_RESERVED = 0x003FF000,
    SMALL_RESERVED = 128
};

/* Bits of a page fault's error code; "write" and "user" are those of enum access. */
enum { ERROR_PRESENT = 1, ERROR_RESERVED = 8 };

enum { SPACES = 0x7FF };
static const u32 NO_TAG = 0xFFFFFFFFu, NO_FRAME = 0xFFFFF000u;

typedef struct {
    u32 error;    /* of the page fault, if it fails */
    u32 physical; /* address of the byte */
    u32 machine;  /* the same, as the machine has it */
    u32 steps;    /* entries read */
    u32 rights;   /* what all entries allow: ENTRY_WRITABLE, ENTRY_USER */
    bool large;
    bool writable; /* at the privilege of the access */
    u32 at[2];     /* machine addresses of the entries: directory, table */
    u32 entry[2];
    /* Guest mode with nested paging: physical addresses of the entries; and where the walk met a
       violation of the host's tables, if it did. */
    u32 entry_physical[2];
    bool quiet, violated, walking; /* walking: at an entry, not at the page */
    u32 violation, violation_error;
} Walk;

/* The machine address of a physical one: the same, unless the CPU is a virtual machine's. Where
   there is no frame it leads beyond all memory; but a device page of the machine, where the guest
   has no RAM, is its own device page too: to whom an access exits, knows whose it is. */
static u32 machine_address(const Cpu *cpu, u32 physical) {
    u32 page = physical >> 12;
    if (likely(cpu->frames == NULL)) return physical;
    if (likely(page < cpu->frame_count)) return cpu->frames[page] << 12 | (physical & PAGE_MASK);
    if (cpu->machine->page_flags[page] & PAGE_MMIO) return physical;
    return NO_FRAME | (physical & PAGE_MASK);
}

/* With these rights on the way, may the access be made? */
static bool allowed(const Cpu *cpu, u32 rights, u32 access, bool *writable) {
    bool user = (access & ACCESS_USER) != 0;
    *writable = (rights & ENTRY_WRITABLE) || (!user && !(cpu->state.cr0 & CR0_WP));
    return (!user || (rights & ENTRY_USER)) && (!(access & ACCESS_WRITE) || *writable);
}

static bool is_nested(const Cpu *cpu) {
    return unlikely(cpu->control != NULL) && cpu->control->nested;
}

/* The machine address of a guest's physical one; false on a violation. Only the walk of an access
   that is made leaves a trace in the host's tables. */
static bool through_host(const Cpu *cpu, u32 physical, u32 access, Walk *w, u32 *machine) {
    Nested nested;
    if (!is_nested(cpu)) {
        *machine = machine_address(cpu, physical);
        return true;
    }
    w->violated = !nested_walk(cpu, physical, access, w->quiet, &nested, &w->steps);
    w->violation = physical;
    w->violation_error = nested.error;
    *machine = nested.machine;
    if (!w->walking && !w->violated && !nested.writable) w->writable = false;
    return !w->violated;
}

/* Read an entry of the guest's tables. */
static bool read_entry(const Cpu *cpu, u32 physical, u32 level, Walk *w) {
    w->entry_physical[level] = physical;
    w->steps++;
    if (!through_host(cpu, physical, 0, w, &w->at[level])) return false;
    w->entry[level] = machine_load32(cpu->machine, w->at[level]);
    return true;
}

static bool walk(const Cpu *cpu, u32 linear, u32 access, Walk *w) {
    const CpuState *state = &cpu->state;
    bool pse = (state->cr4 & CR4_PSE) != 0;
    u32 rights;
    w->error = access & (ACCESS_WRITE | ACCESS_USER);
    w->steps = 0;
    w->violated = false;
    w->walking = true;
    if (!read_entry(cpu, PAGE_OF(state->cr3) + (linear >> 22) * 4, 0, w)) return false;
    if (!(w->entry[0] & ENTRY_PRESENT)) return false;
    rights = w->entry[0];
    w->large = pse && (w->entry[0] & ENTRY_LARGE);
    if (w->large) {
        w->error |= ERROR_PRESENT;
        if (w->entry[0] & LARGE_RESERVED) {
            w->error |= ERROR_RESERVED;
            return false;
        }
        w->physical = (w->entry[0] & ~(u32)LARGE_MASK) | (linear & LARGE_MASK);
    } else {
        if (!read_entry(cpu, PAGE_OF(w->entry[0]) + (linear >> 12 & 1023) * 4, 1, w)) return false;
        if (!(w->entry[1] & ENTRY_PRESENT)) return false;
        w->error |= ERROR_PRESENT;
        if (pse && (w->entry[1] & SMALL_RESERVED)) {
            w->error |= ERROR_RESERVED;
            return false;
        }
        rights &= w->entry[1];
        w->physical = PAGE_OF(w->entry[1]) | (linear & PAGE_MASK);
    }
    w->rights = rights & (ENTRY_WRITABLE | ENTRY_USER);
    if (!allowed(cpu, rights, access, &w->writable)) return false;
    w->walking = false;
    return through_host(cpu, w->physical, access, w, &w->machine);
}

/* Set what is missing of accessed and dirty; the last entry of the walk is the page's. Returns
   whether anything was missing. In guest mode that is a store, which the host's tables may forbid. */
static bool set_used(Cpu *cpu, Walk *w, u32 access) {
    u32 last = w->large ? 0 : 1, i;
    bool changed = false;
    for (i = 0; i <= last; i++) {
        u32 bits = ENTRY_ACCESSED;
        if (i == last && (access & ACCESS_WRITE)) bits |= ENTRY_DIRTY;
        if ((w->entry[i] & bits) == bits) continue;
        changed = true;
        w->walking = true;
        if (!through_host(cpu, w->entry_physical[i], ACCESS_WRITE, w, &w->at[i])) return changed;
        w->entry[i] |= bits;
        machine_store32(cpu->machine, w->at[i], w->entry[i]);
    }
    /* The next store has to come here if this was only a read: it sets the dirty bit. */
    if (!(w->entry[last] & ENTRY_DIRTY)) w->writable = false;
    return changed;
}

/* Make an entry of a translation, without the tags that the page's flags forbid. */
static void fill(Cpu *cpu, u32 user, u32 index) {
    const Translation *walked = &cpu->walked[user][index];
    TlbEntry *entry = &cpu->tlbs[user][index];
    u32 tag = walked->tag, linear = PAGE_OF(tag);
    u8 *host = machine_pointer(cpu->machine, walked->machine);
    u8 flags = cpu->machine->page_flags[walked->machine >> 12];
    u32 filed = filed_tag(tag, cpu->data_end[user]);
    bool direct = host && !(flags & PAGE_MMIO) && !debug_watches_page(cpu, linear) &&
                  !(unlikely(cpu->watchpoint_count) && watch_page(cpu, linear));
    u8 watched = cpu->unwatched ? 0 : PAGE_WATCHED;
    bool plain = !(flags & (PAGE_CODE | watched | PAGE_DIRTY_LOG | PAGE_ROM | PAGE_WEIGHTED));
    entry->read_tag = direct ? filed : NO_TAG;
    entry->write_tag = direct && plain && walked->writable ? filed : NO_TAG;
    entry->host = (uintptr_t)host - linear;
}

void tlb_refill(Cpu *cpu) {
    for (u32 user = 0; user < TLB_SPACES; user++)
        for (u32 i = 0; i < TLB_SIZE; i++) {
            Translation *walked = &cpu->walked[user][i];
            /* Whatever was loaded, no host address beyond the page may come of it. */
            if (walked->tag != NO_TAG) walked->machine = PAGE_OF(walked->machine);
            fill(cpu, user, i);
        }
}

static void fill_code(Cpu *cpu, u32 linear, u32 machine) {
    cpu->code_tlb[(linear >> 12) & (TLB_SIZE - 1)] =
        (CodeTlbEntry){PAGE_OF(linear) | cpu->state.space, PAGE_OF(machine)};
}

static void leave_if_violated(Cpu *cpu, u32 linear, const Walk *w) {
    if (unlikely(w->violated))
        leave_nested(cpu, w->violation, linear, w->violation_error, w->walking);
}

/* With paging off, linear addresses are physical ones. */
static Walk walk_unpaged(Cpu *cpu, u32 linear, u32 access, bool known) {
    Walk w = {.writable = true};
    through_host(cpu, linear, access, &w, &w.machine);
    leave_if_violated(cpu, linear, &w);
    if (!known) cpu->state.cycle += COST_WALK_STEP * w.steps;
    return w;
}

/* Walk the tables; `known`: a processor's TLB would have had the page, though not for this. */
static Walk walk_and_set(Cpu *cpu, u32 linear, u32 access, bool known) {
    Walk w;
    bool changed;
    if (!(cpu->state.cr0 & CR0_PG)) return walk_unpaged(cpu, linear, access, known);
    w.quiet = false;
    if (!walk(cpu, linear, access, &w)) {
        leave_if_violated(cpu, linear, &w);
        tlb_drop_page(cpu, linear); /* SDM vol. 3, 4.10.4.1: so does the fault */
        raise_page_fault(cpu, linear, w.error);
    }
    changed = set_used(cpu, &w, access);
    leave_if_violated(cpu, linear, &w);
    if (changed || !known) cpu->state.cycle += COST_WALK_STEP * w.steps;
    if (w.large) cpu->state.large_pages = 1;
    return w;
}

u32 translate(Cpu *cpu, u32 linear, u32 access) {
    u32 user = access & ACCESS_USER ? 1 : 0, index = (linear >> 12) & (TLB_SIZE - 1);
    Translation *walked = &cpu->walked[user][index];
    bool known = walked->tag == tlb_tag(cpu, linear);
    cpu->machine->stats.tlb_misses++;
    if (access & ACCESS_FETCH) {
        u32 machine = walk_and_set(cpu, linear, access, false).machine;
        fill_code(cpu, linear, machine);
        return machine;
    }
    if (!known || (access & ACCESS_WRITE && !walked->writable)) {
        Walk w = walk_and_set(cpu, linear, access, known);
        *walked = (Translation){tlb_tag(cpu, linear), PAGE_OF(w.machine), w.writable};
    }
    fill(cpu, user, index);
    return walked->machine | (linear & PAGE_MASK);
}

u64 translate_quietly(Cpu *cpu, u32 linear, u32 access, u32 *error) {
    Walk w = {.quiet = true};
    *error = 0;
    if (!(cpu->state.cr0 & CR0_PG)) {
        return through_host(cpu, linear, access, &w, &w.machine) ? w.machine : ~(u64)0;
    }
    if (walk(cpu, linear, access, &w)) return w.machine;
    *error = w.error;
    return ~(u64)0;
}

static void unpaged(const Cpu *cpu, u32 linear, Walked *to) {
    to->physical = linear;
    to->machine = machine_address(cpu, linear);
    to->writable = to->user = to->dirty = 1;
}

int cpu_walk(Cpu *cpu, uint32_t linear, uint32_t access, Walked *to) {
    Walk w;
    memset(to, 0, sizeof *to);
    if (!(cpu->state.cr0 & CR0_PG)) {
        unpaged(cpu, linear, to);
        return 1;
    }
    w.quiet = false;
    if (!walk(cpu, linear, access, &w)) {
        to->error = w.error;
        return 0;
    }
    set_used(cpu, &w, access);
    *to = (Walked){.physical = w.physical,
                   .machine = w.machine,
                   .writable = (w.rights & ENTRY_WRITABLE) != 0,
                   .user = (w.rights & ENTRY_USER) != 0,
                   .dirty = (w.entry[w.large ? 0 : 1] & ENTRY_DIRTY) != 0,
                   .large = w.large,
                   .directory_entry = w.entry[0],
                   .table_entry = w.large ? 0 : w.entry[1]};
    return 1;
}

void cpu_set_frames(Cpu *cpu, const uint32_t *frames, uint32_t count) {
    cpu->frames = frames;
    cpu->frame_count = count;
    tlb_flush(cpu);
}

void tlb_clear(Cpu *cpu) {
    memset(cpu->tlbs, 0xFF, sizeof cpu->tlbs);
    memset(cpu->walked, 0xFF, sizeof cpu->walked);
    memset(cpu->code_tlbs, 0xFF, sizeof cpu->code_tlbs);
}

void tlb_flush(Cpu *cpu) {
    CpuState *state = &cpu->state;
    /* Ids end at 0x7FE: with 0x7FF the last page's guarded tag would be the one that matches
       nothing. The host and its guests have one each, and none of theirs means anything later. */
    if (++cpu->last_space >= SPACES) {
        tlb_clear(cpu);
        cpu->last_space = 0;
        cpu->generation++;
    }
    state->space = cpu->last_space;
    state->large_pages = 0;
    cpu->seen_cr0 = state->cr0;
    cpu->seen_cr3 = state->cr3;
    cpu->seen_cr4 = state->cr4;
}

static void drop_entry(Cpu *cpu, u32 user, u32 i) {
    cpu->tlbs[user][i].read_tag = cpu->tlbs[user][i].write_tag = NO_TAG;
    cpu->walked[user][i].tag = NO_TAG;
}

/* A 4 MiB page is cached in pieces of 4 KiB, and all go at once. Any page of its region that would
   continue it is taken for a piece; where frames lie anywhere, any page of its region. */
static bool is_piece(const Cpu *cpu, u32 tag, u32 machine, u32 linear) {
    return (tag ^ linear) <= LARGE_MASK &&
           (cpu->frames != NULL || is_nested(cpu) || !(PAGE_OF(tag ^ machine) & LARGE_MASK));
}

void tlb_drop_page(Cpu *cpu, u32 linear) {
    bool large = cpu->state.large_pages;
    u32 first = large ? 0 : (linear >> 12) & (TLB_SIZE - 1), last = large ? TLB_SIZE - 1 : first;
    for (u32 user = 0; user < TLB_SPACES; user++)
        for (u32 i = first; i <= last; i++) {
            u32 tag = cpu->walked[user][i].tag;
            CodeTlbEntry *code = &cpu->code_tlbs[user][i];
            if (PAGE_OF(tag ^ linear) == 0 ||
                (large && is_piece(cpu, tag, cpu->walked[user][i].machine, linear)))
                drop_entry(cpu, user, i);
            if (PAGE_OF(code->tag ^ linear) == 0 ||
                (large && is_piece(cpu, code->tag, code->machine, linear)))
                code->tag = NO_TAG;
        }
}

void tlb_drop_writes(Machine *machine, u32 page) {
    bool device = (machine->page_flags[page >> 12] & PAGE_MMIO) != 0;
    u32 user, i;
    Cpu *cpu;
    for (cpu = machine->cpus; cpu; cpu = cpu->next)
        for (user = 0; user < TLB_SPACES; user++)
            for (i = 0; i < TLB_SIZE; i++) {
                if (cpu->walked[user][i].machine != PAGE_OF(page)) continue;
                cpu->tlbs[user][i].write_tag = NO_TAG;
                if (device) cpu->tlbs[user][i].read_tag = NO_TAG;
            }
}
