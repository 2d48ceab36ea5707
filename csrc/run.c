/*
 * run.c - the outer loop: from cpu_run to an exit.
 *
 * cpu_run executes blocks (execute.c) in slices. Whatever an instruction cannot do itself comes back
 * here: by longjmp when it has not retired (a fault, an exit it waits for), by a stop when it has.
 * `unwind` then makes the CPU state exact: ticks, cycles and EIP as of the instruction.
 *
 * Some instructions run alone, in a block of one (MODE_STEP): the one after STI or MOV SS, each one
 * while TF or a debug register is set, one that waits for a device's answer, and the last before a
 * tick limit that falls inside a block. So cpu_run stops at an exact tick, and saving the state at
 * any exit loses nothing. Read event.c next for how faults are delivered.
 */
#include "cut.h"
#include "flags.h"
#include "isa_ops.h"
#include "operand.h"
#include "system.h"

/* Ticks between two looks at cpu_request_exit: a few milliseconds. */
enum { SLICE = 1 << 20 };

/* Faults in a row without an instruction retired: at one tick, each where the last delivery led or
   cpu_run began. Delivery takes no ticks, so handlers that fault at once would keep the CPU for ever,
   whatever its limit; a processor hangs there too. */
enum { FAULT_LOOP = 10000 };
/* cpu_step_on executes at most so many instructions at a time. */
enum { STEPS_ON = 4096 };

/* -- Leaving an instruction ------------------------------------------------------------------- */

static _Noreturn void raise(Cpu *cpu, u32 vector, u32 has_error, u32 error) {
    cpu->fault = (Fault){.vector = vector, .error = error, .has_error = has_error};
    cpu->fault_is_trap = false;
    cpu->exit.row = cpu->current ? cpu->current->row : 0; /* should the vector be intercepted */
    cpu->exit.length = cpu->current ? cpu->current->length : 0;
    longjmp(cpu->escape, ESCAPE_FAULT);
}

_Noreturn void raise_fault(Cpu *cpu, u32 vector) {
    raise(cpu, vector, 0, 0);
}

_Noreturn void raise_error(Cpu *cpu, u32 vector, u32 error) {
    raise(cpu, vector, 1, error);
}

_Noreturn void raise_page_fault(Cpu *cpu, u32 linear, u32 error) {
    cpu->fault_cr2 = linear;
    raise(cpu, VECTOR_PF, 1, error);
}

_Noreturn void leave(Cpu *cpu, u32 reason) {
    cpu->exit.reason = reason;
    if (cpu->current != NULL) {
        cpu->exit.row = cpu->current->row;
        cpu->exit.length = cpu->current->length;
    }
    longjmp(cpu->escape, ESCAPE_EXIT);
}

_Noreturn void leave_unsupported(Cpu *cpu, u32 detail) {
    cpu->exit.detail = detail;
    leave(cpu, EXIT_UNSUPPORTED);
}

/* -- Stopping after an instruction ------------------------------------------------------------ */

/* Within a block its successor's op is overwritten; after a jump the next block finds no ticks. */
void stop_after(Cpu *cpu, u32 reason) {
    const Insn *in = cpu->current;
    if (reason != 0) cpu->stop_reason = reason;
    if (cpu->block == NULL || in == NULL || cpu->stop != NULL || cpu->stop_pending) return;
    if (in->flags & INSN_ENDS) {
        cpu->left -= STOP_BIAS;
        cpu->stop_pending = true;
    } else {
        cpu->stop = &cpu->block->insns[in - cpu->block->insns + 1];
        cpu->stop_op = cpu->stop->op;
        cpu->stop->op = OP_STOP;
    }
}

/* Undo what stop_after changed. */
static void settle(Cpu *cpu) {
    if (cpu->stop != NULL) cpu->stop->op = cpu->stop_op;
    if (cpu->stop_pending) cpu->left += STOP_BIAS;
    cpu->stop = NULL;
    cpu->stop_pending = false;
}

/* Give back ticks and cycles of the block's instructions from `in` on, and set EIP there. */
static void give_back(Cpu *cpu, const Insn *in) {
    const Block *block = cpu->block;
    cpu->left += block->ticks - in->tick;
    for (const Insn *i = in; i <= block->insns + 3 * BLOCK_INSNS; i++) {
        if (i->op == OP_END || i->op == OP_REPEAT) break;
        if (i->op > OP_BREAK) cpu->state.cycle -= cpu->machine->row_cycles[i->row];
        if (i->op > OP_BREAK && i->flags & INSN_ENDS) break;
    }
    cpu->state.eip = block->eip + in->offset;
}

/* Make the state that of the start of the instruction in progress, if there is one. */
static void unwind(Cpu *cpu) {
    settle(cpu);
    if (cpu->block != NULL && cpu->current != NULL) give_back(cpu, cpu->current);
    cpu->block = NULL;
    cpu->current = NULL;
    cpu->state.tick = (u64)(cpu->limit - cpu->left);
}

void resume_at_stop(Cpu *cpu) {
    const Insn *in = cpu->stop;
    settle(cpu);
    give_back(cpu, in);
    cpu->block = NULL;
    cpu->current = NULL;
}

/* A block whose last instruction has no weight was about to run, but the limit has been reached with
   what precedes that instruction, or an exit is requested: the outer loop is to look. */
void hold(Cpu *cpu) {
    give_back(cpu, cpu->block->insns);
    cpu->block = NULL;
    cpu->current = NULL;
}

/* -- What bodies ask ------------------------------------------------------------------------------ */

u32 current_eip(const Cpu *cpu) {
    return cpu->block ? cpu->block->eip + cpu->current->offset : cpu->state.eip;
}

u32 next_eip(const Cpu *cpu) {
    return cpu->block->eip + cpu->current->offset + cpu->current->length;
}

u64 tick_now(const Cpu *cpu) {
    i64 left = cpu->left + (cpu->stop_pending ? STOP_BIAS : 0);
    if (cpu->block != NULL) left += cpu->block->ticks - cpu->current->tick;
    return (u64)(cpu->limit - left);
}

static bool is_weightless(const Cpu *cpu) {
    return cpu->current->flags & INSN_WEIGHTLESS;
}

/* A repeat without weight goes on for a slice, to look for requests then. */
i64 ticks_left(const Cpu *cpu) {
    if (cpu->mode & MODE_STEP) return 0;
    return unlikely(is_weightless(cpu)) ? SLICE : cpu->left;
}

/* Let a breakpoint at `eip` pass as long as no instruction retires. */
static void pass_breakpoint(Cpu *cpu, u32 eip) {
    cpu->step_over = 1;
    cpu->step_over_eip = eip;
    cpu->step_over_tick = tick_now(cpu);
}

/* However it is cut, it does not begin anew, should a breakpoint be there. */
void retire_iterations(Cpu *cpu, u32 iterations) {
    if (likely(!is_weightless(cpu)))
        cpu->left -= iterations;
    else
        cpu->faults_at_tick = 0; /* this is progress, though no tick tells of it */
    pass_breakpoint(cpu, current_eip(cpu));
}

void end_repeat(Cpu *cpu, bool some, bool finished) {
    if (some && likely(!is_weightless(cpu))) cpu->left++;
    /* The last piece alone pays for the instruction: where a repeat is cut must not matter. */
    if (!finished) cpu->state.cycle -= cpu->machine->row_cycles[cpu->current->row];
    cpu->state.eip = finished ? next_eip(cpu) : current_eip(cpu);
}

/* -- Mode ------------------------------------------------------------------------------------------ */

bool checks_alignment(const CpuState *state) {
    return state->cpl == 3 && state->cr0 & CR0_AM && state->eflags & FLAG_AC;
}

static u64 room_in(const Segment *segment) {
    u32 kind = segment->attributes & (ATTR_CODE | ATTR_EXPAND_DOWN | ATTR_WRITABLE | ATTR_UNUSABLE);
    return kind == ATTR_WRITABLE ? (u64)segment->limit + 1 : 0;
}

/* Flat segments are reached by forms that need no room; FS and GS are not among them. */
static void refresh_room(Cpu *cpu, bool flat) {
    bool aligned = checks_alignment(&cpu->state);
    for (u32 i = 0; i < SEG_FS; i++)
        cpu->room[i] = flat || aligned ? 0 : room_in(&cpu->state.seg[i]);
    for (u32 i = SEG_FS; i < SEG_COUNT; i++)
        cpu->room[i] = aligned ? 0 : room_in(&cpu->state.seg[i]);
}

void refresh_mode(Cpu *cpu) {
    const CpuState *state = &cpu->state;
    const Segment *cs = &state->seg[SEG_CS];
    u32 mode = 0, space = state->cpl == 3, data = flat_data_end(state);
    if (data != 0 && state->seg[SEG_SS].attributes & ATTR_BIG && !checks_alignment(state))
        mode |= MODE_FLAT;
    if (unlikely((cs->base | ~cs->limit) != 0)) {
        u32 code = flat_code_end(state);
        mode |= code == 0 ? MODE_LIMITED : MODE_CUT | PAGE_OF(code);
    }
    if (state->eflags & (FLAG_TF | FLAG_RF) || debug_steps(cpu) || cpu->stepping ||
        state->trace & TRACE_EXEC || cpu->hit == HIT_HELD)
        mode |= MODE_STEP;
    refresh_room(cpu, mode & MODE_FLAT);
    cpu->mode = mode;
    cpu->tlb = cpu->tlbs[space];
    cpu->code_tlb = cpu->code_tlbs[space];
    if (unlikely(data != 0 && data < cpu->data_end[space])) cut_data(cpu, space, data);
}

/* Add the ticks since the last change of CPL to the account, if they were at CPL 0. */
static void account_ring(Cpu *cpu, u64 now) {
    if (cpu->state.cpl == 0) cpu->state.retired_cpl0 += now - cpu->retired_mark;
    cpu->retired_mark = now;
}

void set_cpl(Cpu *cpu, u32 cpl) {
    account_ring(cpu, (u64)(cpu->limit - cpu->left - (cpu->stop_pending ? STOP_BIAS : 0)));
    cpu->state.cpl = cpl;
    refresh_mode(cpu);
}

/* -- Guards: intercepts and breakpoints ------------------------------------------------------------- */

void guard(Cpu *cpu, const Insn *in) {
    const Intercepts *intercepts = &cpu->state.intercepts;
    u32 byte = in->row / 8, bit = 1u << in->row % 8;
    cpu->current = in;
    if (intercepts->gp_rows[byte] & bit && cpu->state.cpl > 0) raise_error(cpu, VECTOR_GP, 0);
    if (intercepts->rows[byte] & bit) leave(cpu, EXIT_INTERCEPT);
    if (in->immediate > cpu->state.seg[SEG_CS].limit) raise_error(cpu, VECTOR_GP, 0); /* a call */
}

bool is_breakpoint(const Cpu *cpu, u32 linear) {
    for (u32 i = 0; i < cpu->breakpoint_count; i++)
        if (cpu->breakpoints[i] == linear) return true;
    return false;
}

int cpu_is_past_breakpoint(const Cpu *cpu, uint32_t eip, uint64_t tick) {
    return cpu->step_over && cpu->step_over_eip == eip && cpu->step_over_tick == tick;
}

void meet_breakpoint(Cpu *cpu, u32 eip) {
    if (!is_breakpoint(cpu, cpu->state.seg[SEG_CS].base + eip)) return;
    if (cpu->state.replay_count != 0) return; /* it has begun, and waited for an answer */
    if (cpu_is_past_breakpoint(cpu, eip, tick_now(cpu))) return;
    pass_breakpoint(cpu, eip);
    leave(cpu, EXIT_BREAKPOINT);
}

void report_breakpoint(Cpu *cpu, const Insn *in) {
    u32 eip = cpu->block->eip + in->offset, linear = cpu->state.seg[SEG_CS].base + eip;
    if (!cpu->stepping && debug_marks_code(cpu, linear)) { /* or `step` has seen to it */
        cpu->current = in;
        debug_before_instruction(cpu, linear);
    }
    if (!is_breakpoint(cpu, linear)) return;
    cpu->current = in;
    meet_breakpoint(cpu, eip);
}

/* -- The loop ------------------------------------------------------------------------------------------ */

void run_begin(Cpu *cpu) {
    CpuState *state = &cpu->state;
    state->gpr[8] = 0;
    flags_set(cpu, state->eflags);
    if (state->cr0 != cpu->seen_cr0 || state->cr3 != cpu->seen_cr3 || state->cr4 != cpu->seen_cr4)
        tlb_flush(cpu);
    cpu->seen_cr0 = state->cr0;
    cpu->seen_cr3 = state->cr3;
    cpu->seen_cr4 = state->cr4;
    cpu->limit = (i64)state->tick;
    cpu->left = 0;
    cpu->retired_mark = state->tick;
    cpu->resumed_eip = state->eip;
    cpu->block = NULL;
    cpu->current = NULL;
    cpu->stop_reason = 0;
    if (cpu->pending_exit != EXIT_WATCH) cpu->exit.watched_count = 0;
    cut_raise(cpu);
    debug_mark_code(cpu);
    refresh_mode(cpu);
}

void run_finish(Cpu *cpu) {
    CpuState *state = &cpu->state;
    state->tick = (u64)(cpu->limit - cpu->left);
    account_ring(cpu, state->tick);
    state->eflags = flags_get(cpu);
    if (state->tick != cpu->fault_tick) cpu->faults_at_tick = 0; /* Python may turn ticks back */
    cpu->seen_cr0 = state->cr0;
    cpu->seen_cr3 = state->cr3;
    cpu->seen_cr4 = state->cr4;
    cpu->exit.eip = state->eip;
}

static bool interruptible(const Cpu *cpu) {
    const CpuState *state = &cpu->state;
    return state->interrupt_line && state->eflags & FLAG_IF && !state->interrupt_shadow &&
           state->replay_count == 0;
}

static void trace_instruction(Cpu *cpu) {
    TraceRecord record = {.tick = cpu->state.tick,
                          .kind = TRACE_EXEC,
                          .eip = cpu->state.eip,
                          .esp = cpu->state.gpr[ESP],
                          .eflags = flags_get(cpu),
                          .count = 1};
    trace_push(cpu, &record);
}

static int after_execute(Cpu *cpu) {
    int reason = (int)cpu->stop_reason;
    settle(cpu);
    cpu->state.tick = (u64)(cpu->limit - cpu->left);
    cpu->stop_reason = 0;
    if (reason != 0) cpu->exit.reason = (u32)reason;
    return reason;
}

/* One instruction alone, and the debug trap it may owe. */
static int step(Cpu *cpu) {
    CpuState *state = &cpu->state;
    u64 events = cpu->machine->stats.events;
    bool traps = state->eflags & FLAG_TF;
    int reason;
    if (state->dr[7] & 0xFF && !(state->eflags & FLAG_RF) && !state->debug_shadow)
        debug_before_instruction(cpu, state->seg[SEG_CS].base + state->eip);
    if (state->trace & TRACE_EXEC) trace_instruction(cpu);
    cpu->held_shadow = state->interrupt_shadow;
    cpu->held_debug_shadow = state->debug_shadow;
    cpu->held_resume = state->eflags & FLAG_RF;
    cpu->held_hits = state->debug_hits;
    state->interrupt_shadow = state->debug_shadow = 0;
    state->eflags &= ~(u32)FLAG_RF;
    cpu->stepping = true;
    refresh_mode(cpu);
    cpu->limit = (i64)state->tick + 1;
    cpu->left = 1;
    execute(cpu);
    reason = after_execute(cpu);
    cpu->stepping = false;
    refresh_mode(cpu);
    if (state->tick == (u64)cpu->limit - 1) { /* part of another instruction: it goes on */
        state->interrupt_shadow |= cpu->held_shadow;
        state->debug_shadow |= cpu->held_debug_shadow;
        traps = false;
    } else if (cpu->hit == HIT_HELD) {
        cpu->hit = HIT_DUE;
    }
    state->replay_count = state->replay_next = 0;
    if (reason != 0) cpu->pending_exit = reason;
    if (cpu->machine->stats.events != events) traps = false;
    if ((traps || state->debug_hits) && !state->debug_shadow) {
        if (reason == EXIT_HALT) cpu->pending_exit = 0; /* the trap ends the halt */
        debug_after_instruction(cpu, traps);
    }
    cpu->pending_exit = 0;
    return reason;
}

static bool must_step(const Cpu *cpu) {
    return cpu->mode & MODE_STEP || cpu->state.interrupt_shadow || cpu->state.replay_count != 0 ||
           cpu->single;
}

/* An external interrupt can be taken: whose vector the core knows, it delivers. */
static int take_interrupt(Cpu *cpu) {
    if (cpu->apic_mode != APIC_SERVED || !apic_interrupts(cpu)) return EXIT_INTERRUPT;
    cpu->block = NULL;
    cpu->current = NULL;
    deliver(cpu, (u32)cpu_acknowledge(cpu), EVENT_EXTERNAL, false, 0);
    return after_execute(cpu);
}

/* The output of an APIC that is lent has risen: its guest may have to be interrupted. */
static int report_rise(Cpu *cpu) {
    cpu->apic_rose = false;
    return EXIT_INTERRUPT;
}

/* The tick at which run_once has to look again. */
static u64 next_stop(const Cpu *cpu, u64 until) {
    u64 due = cpu->state.timer_due;
    return apic_is_served(cpu) && due < until ? due : until;
}

/* Run to the next thing of interest; returns an exit reason, or 0 to go on. */
static int run_once(Cpu *cpu, u64 until) {
    CpuState *state = &cpu->state;
    u64 start = state->tick;
    int reason;
    if (cpu->pending_exit) {
        reason = cpu->pending_exit;
        cpu->pending_exit = 0;
        cpu->exit.reason = (u32)reason;
        return reason;
    }
    if (cpu->hit == HIT_DUE) {
        cpu->hit = HIT_NONE;
        refresh_mode(cpu);
        return EXIT_WATCHPOINT;
    }
    if (cpu->trace_count > TRACE_RING / 2) return EXIT_TRACE;
    if (start >= until) return EXIT_DEADLINE;
    if (apic_is_served(cpu)) {
        cpu_apic_advance(cpu);
        if (cpu->apic_rose) return report_rise(cpu);
    }
    if (interruptible(cpu)) return take_interrupt(cpu);
    if (must_step(cpu)) return step(cpu);
    until = next_stop(cpu, until);
    cpu->left = until - start < SLICE ? (i64)(until - start) : SLICE;
    cpu->limit = (i64)start + cpu->left;
    execute(cpu);
    reason = after_execute(cpu);
    if (reason == 0 && state->tick == start && !must_step(cpu) && !interruptible(cpu))
        return step(cpu);
    return reason;
}

/* The instruction left for an exit: what `step` took from the state belongs to it again. */
static void give_held_back(Cpu *cpu) {
    cpu->state.interrupt_shadow = cpu->held_shadow;
    cpu->state.debug_shadow = cpu->held_debug_shadow;
    cpu->state.eflags |= cpu->held_resume;
    cpu->state.debug_hits = cpu->held_hits;
    refresh_mode(cpu);
}

static void restore_held(Cpu *cpu) {
    if (!cpu->stepping) return;
    cpu->stepping = false;
    give_held_back(cpu);
}

static bool faults_for_ever(Cpu *cpu) {
    if (cpu->fault_tick != cpu->state.tick || cpu->resumed_eip != cpu->state.eip)
        cpu->faults_at_tick = 0;
    cpu->fault_tick = cpu->state.tick;
    return ++cpu->faults_at_tick > FAULT_LOOP;
}

static int stop_fault_loop(Cpu *cpu) {
    cpu->delivering = false;
    cpu->fault_count = 0;
    cpu->faults_at_tick = 0;
    cpu->exit.detail = UNSUPPORTED_FAULT_LOOP;
    return EXIT_UNSUPPORTED;
}

/* An unretired instruction: nothing of what it was told by devices is used up. */
static int escaped(Cpu *cpu, int how) {
    bool alone;
    int reason;
    if (cpu->current != NULL && cpu->hit == HIT_DUE) cpu->hit = HIT_NONE; /* it will be met again */
    unwind(cpu);
    cpu->stop_reason = 0;
    cpu->state.replay_next = 0;
    if (how == ESCAPE_EXIT) {
        note_in_flight(cpu);
        cpu->delivering = false;
        cpu->fault_count = 0;
        restore_held(cpu);
        return (int)cpu->exit.reason;
    }
    alone = cpu->stepping;
    if (alone) {
        cpu->stepping = false;
        refresh_mode(cpu);
    }
    cpu->state.replay_count = 0;
    cpu->state.debug_hits = 0;
    if (unlikely(faults_for_ever(cpu))) return stop_fault_loop(cpu);
    reason = deliver_fault(cpu);
    if (reason == EXIT_WATCH && cpu->pending_exit == EXIT_WATCH) cpu->pending_exit = 0; /* both */
    if (reason == EXIT_EVENT && alone) give_held_back(cpu); /* nothing was delivered */
    return reason;
}

/* What cpu_step returns where cpu_run would go on: the exit that had to wait for a debug trap, if
   there is one. */
static int end_of_step(Cpu *cpu) {
    int reason = cpu->pending_exit;
    cpu->pending_exit = 0;
    if (reason != 0) return reason;
    return cpu_take_hit(cpu) ? EXIT_WATCHPOINT : EXIT_DEADLINE;
}

/* Run until one exit reason; longjmp comes back to the setjmp, as often as need be. */
int run_guarded(Cpu *cpu, u64 until) {
    int how = setjmp(cpu->escape), reason = 0;
    if (how != 0) {
        reason = escaped(cpu, how);
        if (reason == 0 && cpu->single) reason = end_of_step(cpu);
    }
    while (reason == 0) {
        if (cpu->request) {
            cpu->request = 0;
            return EXIT_REQUEST;
        }
        reason = run_once(cpu, until);
        if (reason == EXIT_MMIO_WRITE && apic_take_posted(cpu)) reason = 0;
        if (reason == 0 && cpu->single) reason = end_of_step(cpu);
    }
    return reason;
}

int cpu_run(Cpu *cpu, uint64_t until_tick) {
    int reason;
    run_begin(cpu);
    reason = run_guarded(cpu, until_tick);
    cpu->exit.reason = (u32)reason;
    run_finish(cpu);
    return reason;
}

int cpu_step(Cpu *cpu, const uint8_t *code, uint32_t size, uint32_t length) {
    int reason;
    cpu->inline_code = code;
    cpu->inline_size = size;
    cpu->inline_length = length;
    cpu->single = true;
    reason = cpu_run(cpu, cpu->state.tick + 1);
    cpu->single = false;
    cpu->inline_code = NULL;
    return reason;
}

/* Is a CPU in ring 0 still within what it did at `eip`, or is its stack high? */
static bool stays(const Cpu *cpu, u32 eip, u32 floor) {
    const CpuState *state = &cpu->state;
    bool high = state->seg[SEG_SS].base + state->gpr[ESP] - 1 >= floor;
    return state->cpl == 0 && (state->eip == eip || high) && !interruptible(cpu);
}

int cpu_step_on(Cpu *cpu, uint32_t eip, uint32_t floor, uint64_t until) {
    int reason = EXIT_DEADLINE;
    for (u32 left = STEPS_ON; left > 0 && reason == EXIT_DEADLINE; left--) {
        if (cpu->state.tick >= until || !stays(cpu, eip, floor)) break;
        eip = cpu->state.eip;
        reason = cpu_step(cpu, NULL, 0, 0);
    }
    return reason;
}

int inject_guarded(Cpu *cpu, u32 vector, u32 kind, u32 has_error, u32 error) {
    int how = setjmp(cpu->escape);
    if (how != 0) return escaped(cpu, how);
    if (kind == EVENT_EXCEPTION) {
        if (unlikely(faults_for_ever(cpu))) return stop_fault_loop(cpu);
        deliver_reflected(cpu, vector, has_error, error);
    } else {
        deliver(cpu, vector, kind, has_error, error);
    }
    if (cpu->stop_reason == 0) debug_after_instruction(cpu, false);
    return 0;
}

int cpu_inject(Cpu *cpu, uint32_t vector, uint32_t kind, uint32_t has_error, uint32_t error) {
    int reason;
    run_begin(cpu);
    reason = inject_guarded(cpu, vector, kind, has_error, error);
    if (reason == 0 && cpu->stop_reason) reason = (int)cpu->stop_reason;
    cpu->exit.reason = (u32)reason;
    run_finish(cpu);
    return reason;
}

int cpu_interrupt(Cpu *cpu, uint32_t vector) {
    return cpu_inject(cpu, vector, EVENT_EXTERNAL, 0, 0);
}

void cpu_complete(Cpu *cpu, uint64_t value) {
    CpuState *state = &cpu->state;
    if (state->replay_count < REPLAY_MAX)
        state->replay[state->replay_count++] = io_answer(cpu, value);
}

void cpu_complete_bytes(Cpu *cpu, const uint8_t *data, uint32_t size) {
    io_complete_bytes(cpu, data, size);
}

void cpu_request_exit(Cpu *cpu) {
    cpu->request = 1;
}

void cpu_forget_request(Cpu *cpu) {
    cpu->request = 0;
    cpu->hit = HIT_NONE;
}

void machine_stop_at_events(Machine *machine, int on) {
    machine->event_stops = on != 0;
}
