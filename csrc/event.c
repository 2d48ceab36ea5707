/*
 * event.c - delivery of exceptions and interrupts through the IDT (SDM vol. 3, chapter 6).
 *
 * The protocol of nested faults. A delivery reads the IDT, descriptors, TSS and pushes on a stack,
 * and all of that can fault: raise_* then leaves it by longjmp, with nothing changed. So that the
 * second fault knows of the first, deliver sets cpu->delivering and delivering_vector before it
 * begins (software interrupts excepted: they are benign, and their faults are the INT's own) and
 * clears them when it is done. The outer loop, landing in its setjmp, calls deliver_fault whatever
 * was raised; deliver_fault finds `delivering` set, combines the two vectors by SDM table 6-5, and
 * delivers the result in the same way:
 *
 *     raise -> setjmp -> deliver_fault -> deliver -> raise -> setjmp -> deliver_fault -> ...
 *
 * It ends because a fault during #DF is a triple fault, and two serial faults make a #DF at the
 * latest. cpu->faults collects what was raised on the way; after a shutdown it is the chain of
 * faults that people see. State.eip stays that of the first event throughout.
 *
 * An intercepted vector (state.intercepts.vectors) leaves instead of being delivered: by
 * deliver_fault for faults and traps, by software_interrupt for INT. deliver itself does not ask:
 * what cpu_inject and cpu_interrupt are told to deliver is delivered. Read debug.c next.
 */
#include "flags.h"
#include "isa_cost.h"
#include "isa_exceptions.h"
#include "transfer.h"

enum { NO_EXCEPTION = 256, DR7_GD = 1 << 13 };

typedef struct {
    u32 vector, kind, error;
    bool has_error;
    u32 ext;   /* ERROR_EXTERNAL unless software asked for it */
    u32 image; /* EFLAGS to push */
} Event;

/* The IDT's entry, checked but for where it leads. */
static Descriptor read_gate(Cpu *cpu, const Event *event) {
    u32 offset = event->vector * 8, type;
    u32 error = offset | ERROR_IDT | event->ext;
    Descriptor gate;
    if (offset + 7 > cpu->state.idtr.limit) raise_error(cpu, VECTOR_GP, error);
    gate.linear = cpu->state.idtr.base + offset;
    gate.low = load_system(cpu, gate.linear, 4);
    gate.high = load_system(cpu, gate.linear + 4, 4);
    type = gate.high >> 8 & 0x1F;
    if (type != TYPE_TASK_GATE && (type & ~(u32)9) != TYPE_INTERRUPT_GATE16)
        raise_error(cpu, VECTOR_GP, error);
    if (event->kind == EVENT_SOFTWARE && descriptor_dpl(gate) < cpu->state.cpl)
        raise_error(cpu, VECTOR_GP, error);
    if (!is_present(gate)) raise_error(cpu, VECTOR_NP, error);
    if (type == TYPE_TASK_GATE) leave_unsupported(cpu, UNSUPPORTED_TASK_GATE);
    if (!(type & 8)) leave_unsupported(cpu, UNSUPPORTED_CODE16);
    return gate;
}

/* The handler's code segment. */
static Descriptor read_handler(Cpu *cpu, u32 selector, u32 ext) {
    Descriptor code;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, ext);
    code = fetch_descriptor_ext(cpu, selector, VECTOR_GP, ext);
    if (!is_code(code) || descriptor_dpl(code) > cpu->state.cpl)
        raise_error(cpu, VECTOR_GP, (selector & 0xFFFC) | ext);
    if (!is_present(code)) raise_error(cpu, VECTOR_NP, (selector & 0xFFFC) | ext);
    return code;
}

static void push_frame(Cpu *cpu, Stack *stack, const Event *event, bool inner) {
    if (inner) {
        stack_write(cpu, stack, 32, cpu->state.seg[SEG_SS].selector);
        stack_write(cpu, stack, 32, cpu->state.gpr[ESP]);
    }
    stack_write(cpu, stack, 32, event->image);
    stack_write(cpu, stack, 32, cpu->state.seg[SEG_CS].selector);
    stack_write(cpu, stack, 32, cpu->state.eip);
    if (event->has_error) stack_write(cpu, stack, 32, event->error);
}

static void trace_event(Cpu *cpu, const Event *event) {
    TraceRecord record;
    memset(&record, 0, sizeof record);
    record.tick = tick_now(cpu);
    record.kind = TRACE_EVENT;
    record.eip = cpu->state.eip;
    record.vector = event->vector;
    record.error = event->error;
    record.has_error = event->has_error;
    record.event_kind = event->kind;
    record.cr2 = cpu->state.cr2;
    record.esp = cpu->state.gpr[ESP];
    record.address = cpu->state.cr3;
    record.cs = cpu->state.seg[SEG_CS].selector;
    record.ss = cpu->state.seg[SEG_SS].selector;
    record.eflags = event->image;
    trace_push(cpu, &record);
}

static void charge(Cpu *cpu, const Event *event, bool inner) {
    u32 cost = event->kind == EVENT_EXTERNAL ? COST_INTERRUPT_DELIVERY : COST_EXCEPTION_DELIVERY;
    if (inner) cost += COST_RING_CHANGE;
    if (event->kind == EVENT_EXCEPTION && event->vector == VECTOR_PF) cost += COST_PAGE_FAULT;
    cpu->state.cycle += cost;
    cpu->machine->stats.events++;
    if (unlikely(cpu->machine->event_stops))
        for (Cpu *each = cpu->machine->cpus; each; each = each->next) each->request = 1;
}

/* Continue in the handler: nothing here can fault. */
static void enter_handler(Cpu *cpu, const Event *event, Descriptor gate, Descriptor code,
                          u32 level) {
    u32 cleared = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM;
    if (system_type(gate) == TYPE_INTERRUPT_GATE32) cleared |= FLAG_IF;
    cpu->state.eflags &= ~cleared;
    cpu->state.eip = (gate.low & 0xFFFF) | (gate.high & 0xFFFF0000);
    cpu->resumed_eip = cpu->state.eip;
    if (event->vector == VECTOR_DB && event->kind == EVENT_EXCEPTION)
        cpu->state.dr[7] &= ~(u32)DR7_GD;
    set_code_segment(cpu, gate.low >> 16, code, level);
}

static void deliver_event(Cpu *cpu, const Event *event) {
    Descriptor gate = read_gate(cpu, event);
    Descriptor code = read_handler(cpu, gate.low >> 16, event->ext);
    u32 level = is_conforming(code) ? cpu->state.cpl : descriptor_dpl(code);
    bool inner = level < cpu->state.cpl;
    Stack stack = inner ? stack_of_level(cpu, level, event->ext) : stack_in_use(cpu);
    u32 offset = (gate.low & 0xFFFF) | (gate.high & 0xFFFF0000);
    stack_reserve(cpu, &stack, (inner ? 5 : 3) + event->has_error, 32, event->ext);
    if (offset > segment_of(0, code).limit) raise_error(cpu, VECTOR_GP, event->ext);
    refuse_code16(cpu, code);
    if (inner) mark_accessed(cpu, &stack.descriptor);
    mark_accessed(cpu, &code);
    if (cpu->state.trace & TRACE_EVENT) trace_event(cpu, event);
    push_frame(cpu, &stack, event, inner);
    if (inner)
        stack_install(cpu, &stack);
    else
        cpu->state.gpr[ESP] = stack.pointer;
    enter_handler(cpu, event, gate, code, level);
    charge(cpu, event, inner);
}

static void deliver_with(Cpu *cpu, u32 vector, u32 kind, bool has_error, u32 error, u32 resume) {
    Event event = {vector, kind, error, has_error, kind == EVENT_SOFTWARE ? 0 : ERROR_EXTERNAL, 0};
    event.image = flags_get(cpu) | resume;
    if (kind == EVENT_SOFTWARE) {
        event.image &= ~(u32)FLAG_RF; /* the INT is done, which ends the flag's effect */
    } else {
        cpu->delivering = true;
        cpu->delivering_vector = kind == EVENT_EXCEPTION ? vector : NO_EXCEPTION;
        cpu->in_flight = (InFlight){1, vector, kind, has_error, error, cpu->again};
    }
    deliver_event(cpu, &event);
    cpu->delivering = false;
    cpu->fault_count = 0;
}

void deliver(Cpu *cpu, u32 vector, u32 kind, bool has_error, u32 error) {
    bool fault =
        kind == EVENT_EXCEPTION && vector < EXCEPTION_COUNT && exception_facts[vector].is_fault;
    deliver_with(cpu, vector, kind, has_error, error, fault ? FLAG_RF : 0);
}

/* -- Interception ------------------------------------------------------------------------------ */

static bool is_intercepted(const Cpu *cpu, u32 vector) {
    return cpu->state.intercepts.vectors[vector / 8] >> vector % 8 & 1;
}

static void fill_exit(Cpu *cpu, u32 kind, const Fault *fault) {
    ExitRecord *exit = &cpu->exit;
    exit->vector = fault->vector;
    exit->error = fault->error;
    exit->has_error = fault->has_error;
    exit->kind = kind;
    exit->linear = fault->vector == VECTOR_PF ? cpu->fault_cr2 : 0;
}

void software_interrupt(Cpu *cpu, u32 vector) {
    if (unlikely(is_intercepted(cpu, vector))) {
        Fault fault = {vector, 0, false, current_eip(cpu)};
        fill_exit(cpu, EVENT_SOFTWARE, &fault);
        leave(cpu, EXIT_EVENT);
    }
    deliver(cpu, vector, EVENT_SOFTWARE, false, 0);
}

/* -- Faults ------------------------------------------------------------------------------------ */

/* What `second` during the delivery of `first` comes to: a vector, or -1 for shutdown. */
static int combine(u32 first, u32 second) {
    u32 before =
        first < EXCEPTION_COUNT ? exception_facts[first].contribution : CONTRIBUTION_BENIGN;
    u32 after = exception_facts[second].contribution;
    if (after == CONTRIBUTION_BENIGN) return (int)second;
    if (before == CONTRIBUTION_DOUBLE_FAULT) return -1;
    if (before == CONTRIBUTION_PAGE_FAULT) return VECTOR_DF;
    if (before == CONTRIBUTION_CONTRIBUTORY && after == CONTRIBUTION_CONTRIBUTORY) return VECTOR_DF;
    return (int)second;
}

/* Remember a fault of the chain; the first, which is the cause, and the last two are kept. */
static void note_fault(Cpu *cpu) {
    if (cpu->fault_count == 3) {
        cpu->faults[1] = cpu->faults[2];
        cpu->fault_count = 2;
    }
    cpu->fault.eip = cpu->state.eip;
    cpu->faults[cpu->fault_count++] = cpu->fault;
}

static int shut_down(Cpu *cpu) {
    memcpy(cpu->exit.faults, cpu->faults, sizeof cpu->exit.faults);
    cpu->exit.fault_count = cpu->fault_count;
    cpu->exit.eip = cpu->state.eip;
    cpu->delivering = false;
    cpu->fault_count = 0;
    return EXIT_SHUTDOWN;
}

/* The exit that the pushes of a delivery have asked for (a device or watched page), if any. */
static int stop_of_pushes(Cpu *cpu) {
    u32 reason = cpu->stop_reason;
    cpu->stop_reason = 0;
    if (reason != 0) cpu->exit.reason = reason;
    return (int)reason;
}

void deliver_reflected(Cpu *cpu, u32 vector, bool has_error, u32 error) {
    cpu->fault = (Fault){vector, error, has_error, 0};
    note_fault(cpu);
    if (vector != VECTOR_DB) { /* as at the beginning of any instruction, and this one faulted */
        cpu->state.eflags &= ~(u32)FLAG_RF;
        cpu->state.interrupt_shadow = cpu->state.debug_shadow = 0;
        cpu->state.debug_hits = 0;
    }
    deliver(cpu, vector, EVENT_EXCEPTION, has_error, error);
}

void note_in_flight(Cpu *cpu) {
    if (cpu->control != NULL && cpu->delivering) cpu->control->event = cpu->in_flight;
}

/* An intercepted vector, instead of its delivery. */
static int leave_event(Cpu *cpu) {
    note_in_flight(cpu);
    fill_exit(cpu, EVENT_EXCEPTION, &cpu->fault);
    cpu->delivering = false;
    cpu->fault_count = 0;
    return EXIT_EVENT;
}

int deliver_fault(Cpu *cpu) {
    Fault *fault = &cpu->fault;
    u32 resume;
    note_fault(cpu);
    if (!cpu->delivering) cpu->again = !cpu->fault_is_trap;
    /* A guest's host is asked before two faults are made one: the second may be its own doing. */
    if (cpu->control != NULL && is_intercepted(cpu, fault->vector)) return leave_event(cpu);
    if (cpu->delivering) {
        int vector = combine(cpu->delivering_vector, fault->vector);
        /* CR2 is the last page fault's, also if it was one too many. */
        if (fault->vector == VECTOR_PF && vector != VECTOR_PF) cpu->state.cr2 = cpu->fault_cr2;
        if (vector < 0) return shut_down(cpu);
        if ((u32)vector != fault->vector) {
            fault->vector = (u32)vector;
            fault->error = 0;
            fault->has_error = true;
        }
    }
    if (unlikely(is_intercepted(cpu, fault->vector))) return leave_event(cpu);
    if (fault->vector == VECTOR_PF) cpu->state.cr2 = cpu->fault_cr2;
    resume = cpu->fault_is_trap || fault->vector == VECTOR_DF ? 0 : FLAG_RF;
    deliver_with(cpu, fault->vector, EVENT_EXCEPTION, fault->has_error, fault->error, resume);
    /* A push may have met a data breakpoint: its trap comes before the handler. */
    if (cpu->stop_reason == 0) debug_after_instruction(cpu, false);
    return stop_of_pushes(cpu);
}
