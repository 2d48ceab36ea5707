/*
 * api.c - machines and CPUs from the outside: making, freeing, host access, saving, loading.
 *
 * Host accesses (devices, loader, hypervisor) go through here, so that page flags hold for them as
 * for the guest's stores: code is dropped, watched pages are not by-passed in the dirty log.
 */
#include <stdlib.h>

#include "cut.h"
#include "flags.h"
#include "isa_cost.h"
#include "isa_rows.h"
#include "operand.h"

enum { ALL_PAGES = 1 << 20 };

/* -- Machines ----------------------------------------------------------------------------------- */

static bool allocate_tables(Machine *machine) {
    machine->page_offset = calloc(ALL_PAGES, sizeof(u64));
    machine->page_flags = calloc(ALL_PAGES, 1);
    machine->dirty = calloc(ALL_PAGES, 1);
    machine->page_blocks = calloc(machine->pages + 1, sizeof(Block *));
    machine->code_map = calloc(machine->pages + 1, sizeof *machine->code_map);
    machine->hash = calloc(BLOCK_HASH, sizeof(Block *));
    machine->arena = malloc(ARENA_BYTES);
    return machine->page_offset && machine->page_flags && machine->dirty && machine->page_blocks &&
           machine->code_map && machine->hash && machine->arena;
}

_Static_assert((int)ROW_COUNT <= (int)MOST_ROWS && (int)COST_EVENTS <= (int)MOST_EVENTS,
               "a machine has no room");

static void set_default_costs(Machine *machine) {
    static const u32 events[COST_EVENTS] = DEFAULT_EVENT_CYCLES;
    for (u32 row = 0; row < ROW_COUNT; row++) machine->row_cycles[row] = row_facts[row].cycles;
    memcpy(machine->event_cycles, events, sizeof events);
}

Machine *machine_new(uint8_t *memory, uint64_t size) {
    Machine *machine = calloc(1, sizeof *machine);
    if (machine == NULL) return NULL;
    machine->memory = memory;
    machine->size = size;
    machine->pages = (u32)(size >> 12 < ALL_PAGES ? size >> 12 : ALL_PAGES);
    if (!allocate_tables(machine)) {
        machine_free(machine);
        return NULL;
    }
    for (u32 page = 0; page < machine->pages; page++)
        machine->page_offset[page] = ((u64)page << 12) + 1;
    set_default_costs(machine);
    return machine;
}

/* A garbage collector frees in any order: the last of machine and CPUs takes the tables along. */
void machine_free(Machine *machine) {
    if (machine == NULL) return;
    machine->released = true;
    if (machine->cpus != NULL) return;
    free(machine->page_offset);
    free(machine->page_flags);
    free(machine->dirty);
    free(machine->page_blocks);
    free(machine->code_map);
    for (u32 page = 0; machine->weights && page < machine->pages; page++)
        free(machine->weights[page]);
    free(machine->weights);
    free(machine->hash);
    free(machine->arena);
    free(machine);
}

static void flush_all_tlbs(Machine *machine) {
    for (Cpu *cpu = machine->cpus; cpu; cpu = cpu->next) tlb_flush(cpu);
}

/* Only pages below the memory's size may hold code; others are never cached. */
void machine_map(Machine *machine, uint32_t page, uint64_t offset) {
    if (page >= ALL_PAGES) return;
    if (offset != ~(u64)0 && (offset & PAGE_MASK || offset + PAGE_SIZE > machine->size)) return;
    if (page < machine->pages) block_store(machine, page << 12, PAGE_SIZE);
    machine->page_offset[page] = offset + 1;
    flush_all_tlbs(machine);
}

void machine_set_flags(Machine *machine, uint32_t page, uint32_t count, uint8_t set,
                       uint8_t clear) {
    for (u32 i = 0; i < count && page + i < ALL_PAGES; i++) {
        u8 *flags = &machine->page_flags[page + i];
        u8 own = *flags & PAGE_CODE;
        *flags = (u8)(((*flags & ~clear) | set) & ~PAGE_CODE) | own;
        if (count == 1) tlb_drop_writes(machine, page << 12);
    }
    /* A hypervisor flags page after page: that must not cost it every translation. */
    if (count > 1 || clear & PAGE_MMIO) flush_all_tlbs(machine);
}

uint8_t machine_flags(const Machine *machine, uint32_t page) {
    return page < ALL_PAGES ? machine->page_flags[page] : 0;
}

/* The piece of a host access that lies in one page. */
static u32 piece(u32 address, u32 size) {
    u32 room = PAGE_SIZE - (address & PAGE_MASK);
    return room < size ? room : size;
}

uint32_t machine_read(Machine *machine, uint32_t address, uint8_t *to, uint32_t size) {
    u32 done = 0;
    while (done < size) {
        u32 step = piece(address + done, size - done);
        const u8 *from = machine_pointer(machine, address + done);
        if (from == NULL) break;
        memcpy(to + done, from, step);
        done += step;
    }
    return done;
}

uint32_t machine_write(Machine *machine, uint32_t address, const uint8_t *from, uint32_t size) {
    u32 done = 0;
    while (done < size) {
        u32 at = address + done, step = piece(at, size - done);
        u8 *to = machine_pointer(machine, at), *flags = &machine->page_flags[at >> 12];
        if (to == NULL) break;
        if (!(*flags & PAGE_ROM)) memcpy(to, from + done, step);
        if (*flags & PAGE_WEIGHTED) block_forget_weights(machine, at, step);
        if (*flags & PAGE_CODE) {
            block_store(machine, at, step);
            for (Cpu *cpu = machine->cpus; cpu; cpu = cpu->next)
                if (cpu->block != NULL && cpu->block->mode == MODE_DEAD) stop_after(cpu, 0);
        }
        if (*flags & PAGE_DIRTY_LOG) {
            machine->dirty[at >> 12] = 1;
            *flags &= (u8)~PAGE_DIRTY_LOG;
        }
        done += step;
    }
    return done;
}

const uint8_t *machine_dirty(const Machine *machine) {
    return machine->dirty;
}

CoreStats *machine_stats(Machine *machine) {
    return &machine->stats;
}

/* The table of pages is made when first needed. */
int machine_set_weights(Machine *machine, uint32_t page, const uint8_t *bits) {
    u8 *copy = NULL;
    if (page >= machine->pages) return -1;
    if (bits != NULL) {
        if (machine->weights == NULL) machine->weights = calloc(machine->pages, sizeof(u8 *));
        copy = malloc(PAGE_SIZE / 8);
        if (machine->weights == NULL || copy == NULL) {
            free(copy);
            return -1;
        }
        memcpy(copy, bits, PAGE_SIZE / 8);
    }
    if (machine->weights != NULL) {
        free(machine->weights[page]);
        machine->weights[page] = copy;
    }
    machine_set_flags(machine, page, 1, bits ? PAGE_WEIGHTED : 0, bits ? 0 : PAGE_WEIGHTED);
    block_store(machine, page << 12, PAGE_SIZE);
    return 0;
}

void machine_flush_blocks(Machine *machine) {
    block_flush(machine);
}

int machine_set_costs(Machine *machine, const uint32_t *rows, uint32_t row_count,
                      const uint32_t *events, uint32_t event_count) {
    if (row_count != ROW_COUNT || event_count != COST_EVENTS) return -1;
    memcpy(machine->row_cycles, rows, row_count * sizeof *rows);
    memcpy(machine->event_cycles, events, event_count * sizeof *events);
    block_flush(machine);
    return 0;
}

/* -- CPUs ------------------------------------------------------------------------------------------ */

Cpu *cpu_new(Machine *machine) {
    Cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return NULL;
    cpu->machine = machine;
    cpu->next = machine->cpus;
    machine->cpus = cpu;
    cpu_set_vendor(cpu, (const u8 *)"SeventeenCPU");
    cpu_reset(cpu);
    return cpu;
}

void cpu_set_vendor(Cpu *cpu, const uint8_t *name) {
    for (u32 i = 0; i < 3; i++) cpu->vendor[i] = host_load(name + i * 4, 4);
}

void cpu_free(Cpu *cpu) {
    Machine *machine;
    Cpu **at;
    if (cpu == NULL) return;
    machine = cpu->machine;
    for (at = &machine->cpus; *at != cpu; at = &(*at)->next) continue;
    *at = cpu->next;
    free(cpu->trace);
    free(cpu->breakpoints);
    free(cpu);
    if (machine->released) machine_free(machine);
}

CpuState *cpu_state(Cpu *cpu) {
    return &cpu->state;
}

ExitRecord *cpu_exit(Cpu *cpu) {
    return &cpu->exit;
}

static Segment flat_segment(u32 selector, u32 type) {
    return (Segment){.selector = selector,
                     .limit = 0xFFFFFFFFu,
                     .attributes = ATTR_PRESENT | ATTR_CODE_OR_DATA | ATTR_ACCESSED | ATTR_BIG |
                                   ATTR_GRANULARITY | type};
}

/* Selectors as QEMU's multiboot loader leaves them: code 8, data 16, of a table that is not there. */
void cpu_reset(Cpu *cpu) {
    CpuState *state = &cpu->state;
    *state = (CpuState){.version = STATE_VERSION, .size = sizeof *state};
    for (u32 i = 0; i < SEG_COUNT; i++) state->seg[i] = flat_segment(0x10, ATTR_WRITABLE);
    state->seg[SEG_CS] = flat_segment(0x08, ATTR_CODE | ATTR_READABLE);
    state->ldtr = (Segment){.limit = 0xFFFF, .attributes = ATTR_PRESENT | 2};
    state->tr = (Segment){.limit = 0xFFFF, .attributes = ATTR_PRESENT | 11};
    state->idtr.limit = 0;
    state->cr0 = CR0_PE | CR0_ET;
    state->eflags = FLAG_ONE;
    state->dr[6] = 0xFFFF0FF0u;
    state->dr[7] = 0x400;
    apic_reset(cpu);
    tlb_clear(cpu);
    cpu->last_space = 0;
    cpu->generation++;
    cut_none(cpu);
    cpu->seen_cr0 = state->cr0;
    cpu->seen_cr3 = cpu->seen_cr4 = 0;
    cpu->pending_exit = 0;
    cpu->hit = HIT_NONE;
    cpu->delivering = false;
    cpu->fault_count = 0;
    flags_set(cpu, state->eflags);
    refresh_mode(cpu);
}

void cpu_flush_tlb(Cpu *cpu) {
    tlb_flush(cpu);
}

void cpu_invalidate_page(Cpu *cpu, uint32_t linear) {
    tlb_drop_page(cpu, linear);
}

void cpu_set_watching(Cpu *cpu, int watching) {
    cpu->unwatched = !watching;
    tlb_refill(cpu);
}

void cpu_retire(Cpu *cpu, uint32_t eip) {
    cpu->state.eip = eip;
    cpu->state.tick++;
    cpu->state.interrupt_shadow = cpu->state.debug_shadow = 0;
}

/* Half of a world switch: the hypervisor does the other half where privilege matters. */
void cpu_hand_over(Cpu *to, const Cpu *from, uint32_t kept) {
    CpuState *t = &to->state;
    const CpuState *f = &from->state;
    memcpy(t->gpr, f->gpr, sizeof t->gpr);
    /* Pages with data breakpoints have no TLB entries. */
    if (memcmp(t->dr, f->dr, sizeof t->dr) != 0) tlb_flush(to);
    memcpy(t->dr, f->dr, sizeof t->dr);
    t->eip = f->eip;
    t->eflags = (t->eflags & kept) | (f->eflags & ~kept);
    t->tick = f->tick;
    t->tsc_offset = f->tsc_offset;
    t->interrupt_shadow = f->interrupt_shadow;
    t->debug_shadow = f->debug_shadow;
    t->debug_hits = f->debug_hits;
    apic_hand_over(to, from);
}

/* -- Guest memory by linear address ------------------------------------------------------------------ */

uint64_t cpu_translate(Cpu *cpu, uint32_t linear) {
    u32 error;
    return translate_quietly(cpu, linear, ACCESS_READ, &error);
}

void cpu_translate_pages(Cpu *cpu, const uint32_t *linear, uint32_t count, uint32_t *pages) {
    for (u32 i = 0; i < count; i++) {
        u64 address = cpu_translate(cpu, linear[i]);
        pages[i] = address == ~(u64)0 ? ~(u32)0 : (u32)(address >> 12);
    }
}

static u32 linear_access(Cpu *cpu, u32 linear, u8 *to, const u8 *from, u32 size, u32 access) {
    u32 done = 0, error;
    while (done < size) {
        u32 at = linear + done, step = piece(at, size - done), moved;
        u64 address = translate_quietly(cpu, at, access, &error);
        if (address == ~(u64)0) break;
        moved = to ? machine_read(cpu->machine, (u32)address, to + done, step)
                   : machine_write(cpu->machine, (u32)address, from + done, step);
        done += moved;
        if (moved < step) break;
    }
    return done;
}

uint32_t cpu_read_linear(Cpu *cpu, uint32_t linear, uint8_t *to, uint32_t size, uint32_t cpl) {
    return linear_access(cpu, linear, to, NULL, size, cpl == 3 ? ACCESS_USER : 0);
}

uint32_t cpu_write_linear(Cpu *cpu, uint32_t linear, const uint8_t *from, uint32_t size,
                          uint32_t cpl) {
    return linear_access(cpu, linear, NULL, from, size,
                         ACCESS_WRITE | (cpl == 3 ? ACCESS_USER : 0));
}

/* -- Breakpoints ---------------------------------------------------------------------------------------- */

int cpu_set_breakpoint(Cpu *cpu, uint32_t linear) {
    for (u32 i = 0; i < cpu->breakpoint_count; i++)
        if (cpu->breakpoints[i] == linear) return 0;
    if (cpu->breakpoint_count == cpu->breakpoint_room) {
        u32 room = cpu->breakpoint_room ? 2 * cpu->breakpoint_room : 16;
        u32 *table = realloc(cpu->breakpoints, room * sizeof *table);
        if (table == NULL) return -1;
        cpu->breakpoints = table;
        cpu->breakpoint_room = room;
    }
    cpu->breakpoints[cpu->breakpoint_count++] = linear;
    block_flush(cpu->machine);
    return 0;
}

void cpu_clear_breakpoint(Cpu *cpu, uint32_t linear) {
    for (u32 i = 0; i < cpu->breakpoint_count; i++) {
        if (cpu->breakpoints[i] != linear) continue;
        cpu->breakpoints[i] = cpu->breakpoints[--cpu->breakpoint_count];
        block_flush(cpu->machine);
        return;
    }
}

/* -- Saving: the state, then what the TLBs are made of -------------------------------------------- */

static u32 saved_size(void) {
    return sizeof(CpuState) + sizeof(((Cpu *)0)->walked) + sizeof(((Cpu *)0)->code_tlbs);
}

uint32_t cpu_save(Cpu *cpu, uint8_t *to) {
    if (to == NULL) return saved_size();
    memcpy(to, &cpu->state, sizeof cpu->state);
    to += sizeof cpu->state;
    memcpy(to, cpu->walked, sizeof cpu->walked);
    to += sizeof cpu->walked;
    memcpy(to, cpu->code_tlbs, sizeof cpu->code_tlbs);
    return saved_size();
}

int cpu_load(Cpu *cpu, const uint8_t *from, uint32_t size) {
    CpuState state;
    if (size != saved_size()) return -1;
    memcpy(&state, from, sizeof state);
    if (state.version != STATE_VERSION || state.size != sizeof state) return -1;
    cpu->state = state;
    from += sizeof state;
    memcpy(cpu->walked, from, sizeof cpu->walked);
    from += sizeof cpu->walked;
    memcpy(cpu->code_tlbs, from, sizeof cpu->code_tlbs);
    cut_none(cpu);
    cpu->last_space = state.space;
    cpu->generation++;
    cpu->seen_cr0 = state.cr0;
    cpu->seen_cr3 = state.cr3;
    cpu->seen_cr4 = state.cr4;
    cpu->step_over = 0;
    cpu->hit = HIT_NONE;
    cpu->pending_exit = 0;
    cpu->faults_at_tick = 0;
    block_flush(cpu->machine);
    tlb_refill(cpu); /* now that no page holds code */
    return 0;
}

const char *core_fingerprint(void) {
    return ISA_FINGERPRINT;
}
