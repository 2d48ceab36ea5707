/*
 * debug.c - single steps, the debug registers, and the trace ring (SDM vol. 3, chapter 17); a
 * debugger's watchpoints, which the guest must not notice.
 *
 * Code and data are watched in different ways. Pages with data breakpoints have no TLB tags, so
 * every access to them comes through memory.c, which calls debug_note_access; the trap is raised
 * once the instruction has retired. While DR7 has one, the mode word says MODE_STEP. Instruction
 * breakpoints are marked in the blocks, as those of cpu_set_breakpoint are, and cost nothing elsewhere;
 * if they change during a run, it steps to its end.
 *
 * The DR6 bits of an instruction breakpoint come with a #DB that is a fault, all others with a
 * trap; general detect (a move to or from a debug register under DR7.GD) is system.c's.
 *
 * Watchpoints are found like data breakpoints, by pages without TLB tags. Nothing is stepped for them:
 * the access asks to leave its block, and run.c makes the exit before another instruction.
 */
#include <stdlib.h>

#include "transfer.h"

enum { BREAKPOINT_COUNT = 4, DR6_BS = 1 << 14, DR6_HITS = 15 };

/* R/W fields of DR7. */
enum { ON_EXECUTE, ON_WRITE, ON_PORT, ON_ACCESS };

static u32 condition_of(const Cpu *cpu, u32 n) {
    return cpu->state.dr[7] >> (16 + n * 4) & 3;
}

/* Bytes a breakpoint covers: 1, 2 or 4; the encoding of 8 counts as 4 here. */
static u32 length_of(const Cpu *cpu, u32 n) {
    u32 field = cpu->state.dr[7] >> (18 + n * 4) & 3;
    return field == 0 ? 1 : field == 1 ? 2 : 4;
}

/* Enabled, locally or globally? */
static bool is_enabled(const Cpu *cpu, u32 n) {
    return cpu->state.dr[7] >> (n * 2) & 3;
}

/* Does breakpoint n cover any of `size` bytes at `address`? Its own address is taken aligned. */
static bool covers(const Cpu *cpu, u32 n, u32 address, u32 size) {
    u32 length = length_of(cpu, n);
    u32 start = cpu->state.dr[n] & ~(length - 1);
    return address - start < length || start - address < size;
}

bool debug_watches_data(const Cpu *cpu) {
    u32 n;
    for (n = 0; n < BREAKPOINT_COUNT; n++)
        if (is_enabled(cpu, n) && condition_of(cpu, n) != ON_EXECUTE) return true;
    return false;
}

/* The addresses of the instruction breakpoints that are enabled; how many. */
static u32 code_breaks(const Cpu *cpu, u32 to[BREAKPOINT_COUNT]) {
    u32 n, count = 0;
    for (n = 0; n < BREAKPOINT_COUNT; n++)
        if (is_enabled(cpu, n) && condition_of(cpu, n) == ON_EXECUTE)
            to[count++] = cpu->state.dr[n];
    return count;
}

static bool is_marked(const Cpu *cpu, const u32 *breaks, u32 count) {
    return count == cpu->code_break_count &&
           memcmp(breaks, cpu->code_breaks, count * sizeof *breaks) == 0;
}

void debug_mark_code(Cpu *cpu) {
    u32 breaks[BREAKPOINT_COUNT] = {0}, count;
    if (likely(!(cpu->state.dr[7] & 0xFF) && cpu->code_break_count == 0)) return;
    count = code_breaks(cpu, breaks);
    if (is_marked(cpu, breaks, count)) return;
    memcpy(cpu->code_breaks, breaks, sizeof breaks);
    cpu->code_break_count = count;
    block_flush(cpu->machine);
}

bool debug_marks_code(const Cpu *cpu, u32 linear) {
    for (u32 n = 0; n < cpu->code_break_count; n++)
        if (cpu->code_breaks[n] == linear) return true;
    return false;
}

bool debug_steps(const Cpu *cpu) {
    u32 breaks[BREAKPOINT_COUNT];
    if (likely(!(cpu->state.dr[7] & 0xFF))) return false;
    return debug_watches_data(cpu) || !is_marked(cpu, breaks, code_breaks(cpu, breaks));
}

bool debug_watches_page(const Cpu *cpu, u32 linear) {
    u32 n;
    if (likely(!(cpu->state.dr[7] & 0xFF))) return false;
    for (n = 0; n < BREAKPOINT_COUNT; n++)
        if (is_enabled(cpu, n) && (condition_of(cpu, n) & ON_WRITE) &&
            PAGE_OF(cpu->state.dr[n] ^ linear) == 0)
            return true;
    return false;
}

void debug_note_access(Cpu *cpu, u32 linear, u32 size, bool write) {
    u32 n;
    if (likely(!(cpu->state.dr[7] & 0xFF))) return;
    for (n = 0; n < BREAKPOINT_COUNT; n++) {
        u32 condition = condition_of(cpu, n);
        bool applies = condition == ON_ACCESS || (condition == ON_WRITE && write);
        if (is_enabled(cpu, n) && applies && covers(cpu, n, linear, size))
            cpu->state.debug_hits |= 1u << n;
    }
    if (cpu->state.debug_hits) stop_after(cpu, 0);
}

void debug_note_port(Cpu *cpu, u32 port, u32 size) {
    u32 n;
    if (likely(!(cpu->state.dr[7] & 0xFF)) || !(cpu->state.cr4 & CR4_DE)) return;
    for (n = 0; n < BREAKPOINT_COUNT; n++)
        if (is_enabled(cpu, n) && condition_of(cpu, n) == ON_PORT && covers(cpu, n, port, size))
            cpu->state.debug_hits |= 1u << n;
    if (cpu->state.debug_hits) stop_after(cpu, 0);
}

/* -- A debugger's watchpoints --------------------------------------------------------------- */

bool watch_page(const Cpu *cpu, u32 linear) {
    for (u32 n = 0; n < cpu->watchpoint_count; n++) {
        const Watchpoint *w = &cpu->watchpoints[n];
        u32 first = PAGE_OF(w->linear), last = PAGE_OF(w->linear + w->size - 1);
        if (PAGE_OF(linear) - first <= last - first) return true;
    }
    return false;
}

/* The instruction goes on to its end; run.c makes the exit. Of several that it meets the first is
   reported, with all that it does to those bytes. */
void watch_note(Cpu *cpu, u32 linear, u32 size, u32 access) {
    ExitRecord *exit = &cpu->exit;
    for (u32 n = 0; n < cpu->watchpoint_count; n++) {
        const Watchpoint *w = &cpu->watchpoints[n];
        u32 first = linear - w->linear < w->size ? linear : w->linear;
        if (!(w->access & access) || first - linear >= size) continue;
        if (cpu->hit == HIT_NONE) {
            exit->hit_linear = first;
            exit->hit_access = access;
            exit->hit_eip = current_eip(cpu);
        } else if (exit->hit_linear == first) {
            exit->hit_access |= access;
        }
        if (cpu->hit != HIT_DUE) {
            bool held = cpu->current && cpu->current->flags & INSN_WEIGHTLESS;
            cpu->hit = held ? HIT_HELD : HIT_DUE;
            if (held) refresh_mode(cpu);
        }
        stop_after(cpu, 0);
        return;
    }
}

/* All accesses come by once; what the TLB would hold is kept. It may be a guest's in guest mode, which
   is not in it now, so that its tags could not be told. Blocks are others where there are some. */
static void note_change(Cpu *cpu) {
    memset(cpu->tlbs, 0xFF, sizeof cpu->tlbs);
    if (cpu->watchpoint_count <= 1) block_flush(cpu->machine);
}

int cpu_set_watchpoint(Cpu *cpu, uint32_t linear, uint32_t size, uint32_t access) {
    if (cpu->watchpoint_count == WATCHPOINTS || size == 0) return -1;
    cpu->watchpoints[cpu->watchpoint_count++] = (Watchpoint){linear, size, access};
    note_change(cpu);
    return 0;
}

void cpu_clear_watchpoints(Cpu *cpu) {
    if (cpu->watchpoint_count == 0) return;
    cpu->watchpoint_count = 0;
    cpu->hit = HIT_NONE;
    note_change(cpu);
}

uint32_t cpu_take_hit(Cpu *cpu) {
    u32 access = cpu->hit == HIT_DUE ? cpu->exit.hit_access : 0;
    if (access != 0) cpu->hit = HIT_NONE;
    return access;
}

/* -- The guest's own, raised ---------------------------------------------------------------- */

/* Each #DB shows its own breakpoints; the other bits of DR6 only accumulate. Pushes EFLAGS.RF as
   it stands: only general detect, which does not come here, pushes it set. */
static _Noreturn void raise_debug(Cpu *cpu, u32 bits) {
    cpu->state.dr[6] = (cpu->state.dr[6] & ~(u32)DR6_HITS) | bits;
    cpu->fault.vector = VECTOR_DB;
    cpu->fault.error = 0;
    cpu->fault.has_error = false;
    cpu->fault_is_trap = true;
    longjmp(cpu->escape, ESCAPE_FAULT);
}

void debug_after_instruction(Cpu *cpu, bool stepping) {
    u32 bits = cpu->state.debug_hits | (stepping ? DR6_BS : 0);
    cpu->state.debug_hits = 0;
    if (bits) raise_debug(cpu, bits);
}

void debug_before_instruction(Cpu *cpu, u32 linear) {
    u32 n, bits = 0;
    if (!(cpu->state.dr[7] & 0xFF) || (cpu->state.eflags & FLAG_RF) || cpu->state.debug_shadow)
        return;
    for (n = 0; n < BREAKPOINT_COUNT; n++)
        if (is_enabled(cpu, n) && condition_of(cpu, n) == ON_EXECUTE && cpu->state.dr[n] == linear)
            bits |= 1u << n;
    if (bits) raise_debug(cpu, bits);
}

/* The ring is made when first needed; without memory for it there is no trace. */
void trace_push(Cpu *cpu, const TraceRecord *record) {
    if (cpu->trace == NULL) cpu->trace = malloc(TRACE_RING * sizeof *cpu->trace);
    if (cpu->trace == NULL) return;
    cpu->trace[(cpu->trace_head + cpu->trace_count) % TRACE_RING] = *record;
    if (cpu->trace_count < TRACE_RING)
        cpu->trace_count++;
    else
        cpu->trace_head = (cpu->trace_head + 1) % TRACE_RING;
}

uint32_t cpu_take_trace(Cpu *cpu, TraceRecord *to, uint32_t count) {
    u32 taken = 0;
    while (taken < count && cpu->trace_count > 0) {
        to[taken++] = cpu->trace[cpu->trace_head];
        cpu->trace_head = (cpu->trace_head + 1) % TRACE_RING;
        cpu->trace_count--;
    }
    return taken;
}
