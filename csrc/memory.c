/*
 * memory.c - accesses that the inlined TLB lookup does not serve.
 *
 * They miss the TLB, cross a page, or reach a page with flags: devices, ROM, decoded code, watched
 * pages, the dirty log. An access that crosses a page is translated whole before its first byte
 * moves, so it faults as one. A load from a device leaves cpu_run and is answered through the replay
 * queue: the instruction runs again from its start, and finds there what it has already been told.
 * A store to a device is posted and the instruction retires; Python performs it before anything else.
 * Read paging.c next.
 */
#include "isa_cost.h"
#include "operand.h"
#include "transfer.h"

static u32 rights(const Cpu *cpu) {
    return cpu->state.cpl == 3 ? ACCESS_USER : 0;
}

static bool crosses_page(u32 linear, u32 size) {
    return (linear & PAGE_MASK) + size > PAGE_SIZE;
}

u8 *machine_pointer(Machine *machine, u32 address) {
    u64 offset = machine->page_offset[address >> 12] - 1;
    return offset == ~(u64)0 ? NULL : machine->memory + offset + (address & PAGE_MASK);
}

/* -- Devices ------------------------------------------------------------------------------- */

static u32 device_load(Cpu *cpu, u32 linear, u32 address, u32 size) {
    CpuState *state = &cpu->state;
    if (apic_serves(cpu, address)) {
        state->cycle += COST_MMIO_ACCESS;
        return apic_load(cpu, address, size);
    }
    if (state->replay_next < state->replay_count) return (u32)state->replay[state->replay_next++];
    /* Tables of a delivery cannot wait for an answer: the event would be forgotten meanwhile, and
       arise again, for ever. No instruction reads REPLAY_MAX times, unless tables are devices. */
    if (unlikely(cpu->delivering || state->replay_count >= REPLAY_MAX))
        return size == 4 ? 0xFFFFFFFFu : (1u << size * 8) - 1;
    cpu->exit.size = size;
    cpu->exit.count = 1;
    cpu->exit.linear = linear;
    cpu->exit.address = address;
    leave(cpu, EXIT_MMIO_READ);
}

static void device_store(Cpu *cpu, u32 linear, u32 address, u32 size, u32 value) {
    ExitRecord *exit = &cpu->exit;
    if (cpu->stop_reason != EXIT_MMIO_WRITE) exit->count = 0;
    if (exit->count < POSTED_MAX)
        exit->posted[exit->count++] =
            (PostedWrite){.address = address, .size = size, .value = value};
    exit->linear = linear;
    exit->address = address;
    exit->size = size;
    exit->value = value;
    stop_after(cpu, EXIT_MMIO_WRITE);
}

/* -- Within a page --------------------------------------------------------------------------- */

static u32 page_load(Cpu *cpu, u32 linear, u32 address, u32 size) {
    const u8 *at;
    if (unlikely(cpu->machine->page_flags[address >> 12] & PAGE_MMIO))
        return device_load(cpu, linear, address, size);
    at = machine_pointer(cpu->machine, address);
    return at ? host_load(at, size) : size == 4 ? 0xFFFFFFFFu : (1u << size * 8) - 1;
}

/* A store hit decoded code; leave the running block if it was among it. */
static void code_store(Cpu *cpu, u32 address, u32 size) {
    block_store(cpu->machine, address, size);
    if (cpu->block != NULL && cpu->block->mode == MODE_DEAD) stop_after(cpu, 0);
}

/* Pages that one instruction has stored to, with descriptors that it has marked and the frame of a
   trap after it: fewer than there is room for. */
static void watched_store(Cpu *cpu, u32 linear, u32 address, u32 size, u32 value) {
    ExitRecord *exit = &cpu->exit;
    u32 page = address >> 12, i = 0;
    while (i < exit->watched_count && exit->watched[i] != page) i++;
    if (i == exit->watched_count && i < WATCHED_MAX) exit->watched[exit->watched_count++] = page;
    exit->linear = linear;
    exit->address = address;
    exit->size = size;
    exit->value = value;
    exit->count = 1;
    stop_after(cpu, EXIT_WATCH);
}

static void page_store(Cpu *cpu, u32 linear, u32 address, u32 size, u32 value) {
    Machine *machine = cpu->machine;
    u8 *flags = &machine->page_flags[address >> 12];
    u8 *at = machine_pointer(machine, address);
    if (*flags & PAGE_MMIO) {
        device_store(cpu, linear, address, size, value);
        return;
    }
    if (at == NULL || *flags & PAGE_ROM) return;
    host_store(at, size, value);
    if (likely(!*flags)) return;
    if (unlikely(*flags & PAGE_WEIGHTED)) block_forget_weights(machine, address, size);
    if (*flags & PAGE_CODE) code_store(cpu, address, size);
    if (*flags & PAGE_DIRTY_LOG) {
        machine->dirty[address >> 12] = 1;
        *flags &= (u8)~PAGE_DIRTY_LOG;
    }
    if (*flags & PAGE_WATCHED && !cpu->unwatched) watched_store(cpu, linear, address, size, value);
}

/* -- Any access -------------------------------------------------------------------------------- */

/* Translate both pages of an access that crosses, before either is touched. */
static void translate_across(Cpu *cpu, u32 linear, u32 size, u32 access, u32 machine[2]) {
    machine[0] = translate(cpu, linear, access);
    machine[1] = translate(cpu, PAGE_OF(linear + size - 1), access);
}

static u32 load_with(Cpu *cpu, u32 linear, u32 size, u32 access) {
    u32 machine[2], value = 0, first;
    if (unlikely(cpu->state.dr[7] & 0xFF))
        debug_note_access(cpu, linear, size, access & ACCESS_WRITE);
    if (unlikely(cpu->watchpoint_count)) watch_note(cpu, linear, size, WATCH_READ);
    if (likely(!crosses_page(linear, size)))
        return page_load(cpu, linear, translate(cpu, linear, access), size);
    translate_across(cpu, linear, size, access, machine);
    first = PAGE_SIZE - (linear & PAGE_MASK);
    for (u32 i = 0; i < size; i++) {
        u32 address = i < first ? machine[0] + i : machine[1] + i - first;
        value |= page_load(cpu, linear + i, address, 1) << i * 8;
    }
    return value;
}

static void store_with(Cpu *cpu, u32 linear, u32 size, u32 value, u32 access) {
    u32 machine[2], first;
    access |= ACCESS_WRITE;
    if (unlikely(cpu->state.dr[7] & 0xFF)) debug_note_access(cpu, linear, size, true);
    if (unlikely(cpu->watchpoint_count)) watch_note(cpu, linear, size, WATCH_WRITE);
    if (likely(!crosses_page(linear, size))) {
        page_store(cpu, linear, translate(cpu, linear, access), size, value);
        return;
    }
    translate_across(cpu, linear, size, access, machine);
    first = PAGE_SIZE - (linear & PAGE_MASK);
    for (u32 i = 0; i < size; i++) {
        u32 address = i < first ? machine[0] + i : machine[1] + i - first;
        page_store(cpu, linear + i, address, 1, value >> i * 8 & 0xFF);
    }
}

/*
 * The forms that skip segment_linear have their limits checked here: in a flat mode word, memory
 * operands in ES, SS and DS, and the stack. All they reach past the end of the flat segments comes
 * here, as does what runs from the end of linear space on to its start, which no limit allows. Of
 * operands the form tells whether segment_linear has seen them.
 */
INLINE bool is_past_end(const Cpu *cpu, u32 linear, u32 size) {
    u32 last = linear + size - 1;
    return last > cpu->data_end[cpu->state.cpl == 3] || last < linear;
}

static void check_limit(Cpu *cpu, u32 segment, u32 linear, u32 size) {
    if (!(cpu->mode & MODE_FLAT) || within_limit(&cpu->state.seg[segment], linear, size)) return;
    raise_error(cpu, segment == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

static void check_operand(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    if (in->form == FORM_BASE || in->form == FORM_INDEX)
        check_limit(cpu, in->segment, linear, size);
}

/* The TLB's entry for an access that lies in one guarded page, by the tag found there. */
INLINE bool is_guarded(const Cpu *cpu, u32 tag, u32 linear, u32 size) {
    return tag == (tlb_tag(cpu, linear + size - 1) | TAG_GUARDED);
}

/* Loads past the end: guarded pages are served from the TLB, all else by a walk. */
static u32 load_past(Cpu *cpu, u32 linear, u32 size) {
    const TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(is_guarded(cpu, entry->read_tag, linear, size)))
        return host_load((const u8 *)(entry->host + linear), size);
    return load_with(cpu, linear, size, rights(cpu));
}

static void store_past(Cpu *cpu, u32 linear, u32 size, u32 value) {
    const TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(is_guarded(cpu, entry->write_tag, linear, size)))
        host_store((u8 *)(entry->host + linear), size, value);
    else
        store_with(cpu, linear, size, value, rights(cpu));
}

NOINLINE u32 load_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    cpu->current = in;
    if (likely(!is_past_end(cpu, linear, size))) return load_with(cpu, linear, size, rights(cpu));
    check_operand(cpu, in, linear, size);
    return load_past(cpu, linear, size);
}

NOINLINE u32 load_update_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    cpu->current = in;
    if (unlikely(is_past_end(cpu, linear, size))) {
        const TlbEntry *entry = tlb_entry(cpu, linear);
        check_operand(cpu, in, linear, size);
        if (likely(is_guarded(cpu, entry->write_tag, linear, size)))
            return host_load((const u8 *)(entry->host + linear), size);
    }
    return load_with(cpu, linear, size, rights(cpu) | ACCESS_WRITE);
}

NOINLINE void store_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size, u32 value) {
    cpu->current = in;
    if (likely(!is_past_end(cpu, linear, size))) {
        store_with(cpu, linear, size, value, rights(cpu));
        return;
    }
    check_operand(cpu, in, linear, size);
    store_past(cpu, linear, size, value);
}

NOINLINE u32 stack_load_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    cpu->current = in;
    if (likely(!is_past_end(cpu, linear, size))) return load_with(cpu, linear, size, rights(cpu));
    check_limit(cpu, SEG_SS, linear, size);
    return load_past(cpu, linear, size);
}

NOINLINE void stack_store_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size, u32 value) {
    cpu->current = in;
    if (likely(!is_past_end(cpu, linear, size))) {
        store_with(cpu, linear, size, value, rights(cpu));
        return;
    }
    check_limit(cpu, SEG_SS, linear, size);
    store_past(cpu, linear, size, value);
}

u32 load_system(Cpu *cpu, u32 linear, u32 size) {
    const TlbEntry *entry = &cpu->tlbs[0][(linear >> 12) & (TLB_SIZE - 1)];
    if (likely(plain_tag(entry->read_tag) == tlb_tag(cpu, linear + size - 1)))
        return host_load((const u8 *)(entry->host + linear), size);
    return load_with(cpu, linear, size, 0);
}

void store_system(Cpu *cpu, u32 linear, u32 size, u32 value) {
    store_as(cpu, linear, size, value, false);
}

void store_as(Cpu *cpu, u32 linear, u32 size, u32 value, bool user) {
    const TlbEntry *entry = &cpu->tlbs[user][(linear >> 12) & (TLB_SIZE - 1)];
    if (likely(plain_tag(entry->write_tag) == tlb_tag(cpu, linear + size - 1)))
        host_store((u8 *)(entry->host + linear), size, value);
    else
        store_with(cpu, linear, size, value, user ? ACCESS_USER : 0);
}

void probe_store(Cpu *cpu, u32 linear, u32 size, bool user) {
    u32 access = ACCESS_WRITE | (user ? ACCESS_USER : 0);
    const TlbEntry *entry = &cpu->tlbs[user][(linear >> 12) & (TLB_SIZE - 1)];
    if (likely(plain_tag(entry->write_tag) == tlb_tag(cpu, linear + size - 1))) return;
    translate(cpu, linear, access);
    if (crosses_page(linear, size)) translate(cpu, PAGE_OF(linear + size - 1), access);
}

u8 *bulk_pointer(Cpu *cpu, u32 linear, bool write) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    u32 tag = tlb_tag(cpu, linear);
    if (plain_tag(write ? entry->write_tag : entry->read_tag) != tag) {
        translate(cpu, linear, rights(cpu) | (write ? ACCESS_WRITE : 0));
        if (plain_tag(write ? entry->write_tag : entry->read_tag) != tag) return NULL;
    }
    return (u8 *)(entry->host + linear);
}

/* -- The processor's own accesses to machine addresses ------------------------------------------ */

u32 machine_load32(Machine *machine, u32 address) {
    const u8 *at = machine_pointer(machine, address);
    return at ? host_load(at, 4) : 0xFFFFFFFFu;
}

void machine_store32(Machine *machine, u32 address, u32 value) {
    u8 bytes[4];
    host_store(bytes, 4, value);
    machine_write(machine, address, bytes, 4);
}

/* -- Segmented accesses --------------------------------------------------------------------------- */

u32 stack_linear(Cpu *cpu, u32 pointer, u32 size, bool write) {
    return segment_linear(cpu, SEG_SS, pointer & stack_mask(cpu), size, write);
}
