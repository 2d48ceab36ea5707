/*
 * far.c - transfers that load CS: far JMP, CALL and RET, call gates, IRET.
 *
 * Each follows the same order, the SDM's (vol. 2, the instructions; vol. 3, 5.8): fetch and check
 * descriptors, check the stack and the target's limit, then change state. What the slice leaves out
 * - task gates, TSS, 16-bit gates and code, V86, nested tasks - stops the machine, but only once
 * all checks that come before it have passed. Read event.c next.
 */
#include "flags.h"
#include "isa_cost.h"
#include "operand.h"
#include "transfer.h"

enum { GATE_PARAMETERS = 31 };

static u32 error_of(u32 selector) {
    return selector & 0xFFFC;
}

/* The last steps before a transfer changes anything: EIP within the segment, 32-bit code. */
static void check_entry(Cpu *cpu, Descriptor code, u32 offset) {
    Segment segment = segment_of(0, code);
    if (offset > segment.limit) raise_error(cpu, VECTOR_GP, 0);
    refuse_code16(cpu, code);
}

static void enter(Cpu *cpu, u32 selector, Descriptor code, u32 offset, u32 cpl) {
    set_code_segment(cpu, selector, code, cpl);
    cpu->state.eip = offset;
}

static void check_direct(Cpu *cpu, u32 selector, Descriptor code) {
    u32 cpl = cpu->state.cpl, dpl = descriptor_dpl(code);
    bool allowed =
        is_conforming(code) ? dpl <= cpl : (selector & SELECTOR_RPL) <= cpl && dpl == cpl;
    if (!allowed) raise_error(cpu, VECTOR_GP, error_of(selector));
    if (!is_present(code)) raise_error(cpu, VECTOR_NP, error_of(selector));
}

/* A system descriptor as the target: a 32-bit call gate passes; what the slice lacks stops. */
static void check_gate(Cpu *cpu, u32 selector, Descriptor gate) {
    u32 dpl = descriptor_dpl(gate), type = system_type(gate);
    bool tss = type == TYPE_TSS16 || type == TYPE_TSS32;
    bool call = type == TYPE_CALL_GATE16 || type == TYPE_CALL_GATE32;
    if (!tss && !call && type != TYPE_TASK_GATE) raise_error(cpu, VECTOR_GP, error_of(selector));
    if (dpl < cpu->state.cpl || dpl < (selector & SELECTOR_RPL))
        raise_error(cpu, VECTOR_GP, error_of(selector));
    if (!is_present(gate)) raise_error(cpu, VECTOR_NP, error_of(selector));
    if (tss) leave_unsupported(cpu, UNSUPPORTED_TASK_SWITCH);
    if (type == TYPE_TASK_GATE) leave_unsupported(cpu, UNSUPPORTED_TASK_GATE);
    if (type == TYPE_CALL_GATE16) leave_unsupported(cpu, UNSUPPORTED_CODE16);
}

/* The code segment behind a call gate. A jump may not change the privilege level. */
static Descriptor gate_target(Cpu *cpu, Descriptor gate, bool jump) {
    u32 selector = gate.low >> 16;
    Descriptor code;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, 0);
    code = fetch_descriptor(cpu, selector, VECTOR_GP);
    if (!is_code(code) || descriptor_dpl(code) > cpu->state.cpl)
        raise_error(cpu, VECTOR_GP, error_of(selector));
    if (jump && !is_conforming(code) && descriptor_dpl(code) != cpu->state.cpl)
        raise_error(cpu, VECTOR_GP, error_of(selector));
    if (!is_present(code)) raise_error(cpu, VECTOR_NP, error_of(selector));
    cpu->state.cycle += COST_CALL_GATE;
    return code;
}

static u32 gate_offset(Descriptor gate) {
    return (gate.low & 0xFFFF) | (gate.high & 0xFFFF0000);
}

void far_jump(Cpu *cpu, u32 selector, u32 offset, u32 bits) {
    Descriptor target;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, 0);
    target = fetch_descriptor(cpu, selector, VECTOR_GP);
    offset &= size_mask(bits);
    if (is_code(target)) {
        check_direct(cpu, selector, target);
    } else {
        Descriptor gate = target;
        if (!is_system(target)) raise_error(cpu, VECTOR_GP, error_of(selector));
        check_gate(cpu, selector, gate);
        target = gate_target(cpu, gate, true);
        selector = gate.low >> 16;
        offset = gate_offset(gate);
    }
    check_entry(cpu, target, offset);
    mark_accessed(cpu, &target);
    enter(cpu, selector, target, offset, cpu->state.cpl);
}

/* A call that stays at its privilege level: direct, or by a gate (then always of 32 bits). */
static void call_same(Cpu *cpu, u32 selector, Descriptor code, u32 offset, u32 bits) {
    Stack stack = stack_in_use(cpu);
    stack_reserve(cpu, &stack, 2, bits, 0);
    check_entry(cpu, code, offset);
    mark_accessed(cpu, &code);
    stack_write(cpu, &stack, bits, cpu->state.seg[SEG_CS].selector);
    stack_write(cpu, &stack, bits, next_eip(cpu));
    cpu->state.gpr[ESP] = stack.pointer;
    enter(cpu, selector, code, offset, cpu->state.cpl);
}

static u32 stack_read(Cpu *cpu, u32 bits, u32 offset) {
    u32 pointer = cpu->state.gpr[ESP] + offset;
    if (!(cpu->mode & MODE_FLAT)) pointer = stack_linear(cpu, pointer, bits / 8, false);
    return stack_load(cpu, cpu->current, pointer, bits / 8);
}

/* A call that raises privilege: the stack of the TSS, and parameters copied to it. */
static void call_inner(Cpu *cpu, u32 selector, Descriptor code, u32 offset, u32 count) {
    u32 parameters[GATE_PARAMETERS];
    u32 level = descriptor_dpl(code), i;
    Stack stack = stack_of_level(cpu, level, 0);
    stack_reserve(cpu, &stack, count + 4, 32, 0);
    check_entry(cpu, code, offset);
    for (i = 0; i < count; i++) parameters[i] = stack_read(cpu, 32, i * 4);
    mark_accessed(cpu, &stack.descriptor);
    mark_accessed(cpu, &code);
    stack_write(cpu, &stack, 32, cpu->state.seg[SEG_SS].selector);
    stack_write(cpu, &stack, 32, cpu->state.gpr[ESP]);
    while (count-- > 0) stack_write(cpu, &stack, 32, parameters[count]);
    stack_write(cpu, &stack, 32, cpu->state.seg[SEG_CS].selector);
    stack_write(cpu, &stack, 32, next_eip(cpu));
    stack_install(cpu, &stack);
    cpu->state.cycle += COST_RING_CHANGE;
    enter(cpu, selector, code, offset, level);
}

void far_call(Cpu *cpu, u32 selector, u32 offset, u32 bits) {
    Descriptor target, code;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, 0);
    target = fetch_descriptor(cpu, selector, VECTOR_GP);
    if (is_code(target)) {
        check_direct(cpu, selector, target);
        call_same(cpu, selector, target, offset & size_mask(bits), bits);
        return;
    }
    if (!is_system(target)) raise_error(cpu, VECTOR_GP, error_of(selector));
    check_gate(cpu, selector, target);
    code = gate_target(cpu, target, false);
    selector = target.low >> 16;
    if (!is_conforming(code) && descriptor_dpl(code) < cpu->state.cpl)
        call_inner(cpu, selector, code, gate_offset(target), target.high & GATE_PARAMETERS);
    else
        call_same(cpu, selector, code, gate_offset(target), 32);
}

/* -- Returns ----------------------------------------------------------------------------------- */

/* What a return pops, checked. */
typedef struct {
    u32 selector, eip, cpl;
    Descriptor code;
} Return;

static Return check_return(Cpu *cpu, u32 selector, u32 eip) {
    Return to;
    u32 dpl;
    to.selector = selector & 0xFFFF;
    to.eip = eip;
    to.cpl = selector & SELECTOR_RPL;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, 0);
    to.code = fetch_descriptor(cpu, selector, VECTOR_GP);
    dpl = descriptor_dpl(to.code);
    if (!is_code(to.code) || to.cpl < cpu->state.cpl ||
        (is_conforming(to.code) ? dpl > to.cpl : dpl != to.cpl))
        raise_error(cpu, VECTOR_GP, error_of(selector));
    if (!is_present(to.code)) raise_error(cpu, VECTOR_NP, error_of(selector));
    return to;
}

/* The stack of an outer level, as a return names it. */
static Stack check_outer_stack(Cpu *cpu, u32 selector, u32 pointer, u32 cpl) {
    Stack stack;
    Descriptor d;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, 0);
    d = fetch_descriptor(cpu, selector, VECTOR_GP);
    if ((selector & SELECTOR_RPL) != cpl || !is_writable_data(d) || descriptor_dpl(d) != cpl)
        raise_error(cpu, VECTOR_GP, error_of(selector));
    if (!is_present(d)) raise_error(cpu, VECTOR_SS, error_of(selector));
    stack.segment = segment_of(selector, d);
    stack.segment.attributes |= ATTR_ACCESSED;
    stack.descriptor = d;
    stack.cpl = cpl;
    stack.selector = error_of(selector);
    stack.pointer = pointer;
    return stack;
}

/* Data segments that the outer level may not use become null, and null selectors lose their RPL
   (SDM vol. 2, RET, RETURN-TO-OUTER-PRIVILEGE-LEVEL). */
static void drop_inner_segments(Cpu *cpu) {
    static const u8 segments[] = {SEG_ES, SEG_FS, SEG_GS, SEG_DS};
    u32 i;
    for (i = 0; i < sizeof segments; i++) {
        Segment *segment = &cpu->state.seg[segments[i]];
        bool conforming =
            (segment->attributes & (ATTR_CODE | ATTR_CONFORMING)) == (ATTR_CODE | ATTR_CONFORMING);
        u32 dpl = (segment->attributes & ATTR_DPL) >> 5;
        if (is_null(segment->selector) || (!conforming && dpl < cpu->state.cpl)) {
            memset(segment, 0, sizeof *segment);
            segment->attributes = ATTR_UNUSABLE;
        }
    }
}

/* Continue at an outer level. `release`: bytes of parameters to skip on its stack as well. */
static void return_outer(Cpu *cpu, Return *to, Stack *stack, u32 release) {
    u32 mask = stack->segment.attributes & ATTR_BIG ? 0xFFFFFFFFu : 0xFFFF;
    u32 pointer = stack->pointer + release;
    check_entry(cpu, to->code, to->eip);
    mark_accessed(cpu, &stack->descriptor);
    mark_accessed(cpu, &to->code);
    /* A 16-bit stack takes SP only: the inner level's upper half of ESP stays, as on silicon. */
    stack->pointer = (cpu->state.gpr[ESP] & ~mask) | (pointer & mask);
    stack_install(cpu, stack);
    cpu->state.cycle += COST_RING_CHANGE;
    enter(cpu, to->selector, to->code, to->eip, to->cpl);
    drop_inner_segments(cpu);
    refresh_mode(cpu);
}

/* Continue at the same level with `popped` bytes off the stack. */
static void return_same(Cpu *cpu, Return *to, u32 popped) {
    check_entry(cpu, to->code, to->eip);
    mark_accessed(cpu, &to->code);
    set_stack_pointer(cpu, cpu->state.gpr[ESP] + popped);
    enter(cpu, to->selector, to->code, to->eip, cpu->state.cpl);
}

void far_return(Cpu *cpu, u32 bits, u32 release) {
    u32 size = bits / 8;
    u32 selector = stack_read(cpu, bits, size); /* first, as silicon does: which fault is seen */
    Return to = check_return(cpu, selector, stack_read(cpu, bits, 0));
    if (to.cpl > cpu->state.cpl) {
        u32 outer = stack_read(cpu, bits, 3 * size + release);
        u32 pointer = stack_read(cpu, bits, 2 * size + release);
        Stack stack = check_outer_stack(cpu, outer, pointer, to.cpl);
        return_outer(cpu, &to, &stack, release);
    } else {
        return_same(cpu, &to, 2 * size + release);
    }
}

u32 loadable_flags(const Cpu *cpu, u32 bits) {
    u32 cpl = cpu->state.cpl;
    u32 iopl = (cpu->state.eflags & FLAG_IOPL) >> 12;
    u32 mask = FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT;
    if (cpl <= iopl) mask |= FLAG_IF;
    if (cpl == 0) mask |= FLAG_IOPL;
    return bits == 32 ? mask | FLAG_RF | FLAG_AC | FLAG_ID : mask;
}

void load_flags(Cpu *cpu, u32 mask, u32 value) {
    flags_set(cpu, (flags_get(cpu) & ~mask) | (value & mask));
    refresh_mode(cpu);
}

void interrupt_return(Cpu *cpu, u32 bits) {
    u32 size = bits / 8, eip, selector, image, mask;
    Return to;
    if (cpu->state.eflags & FLAG_NT) leave_unsupported(cpu, UNSUPPORTED_NESTED_TASK);
    image = stack_read(cpu, bits, 2 * size);
    selector = stack_read(cpu, bits, size);
    eip = stack_read(cpu, bits, 0);
    if (bits == 32 && (image & FLAG_VM) && cpu->state.cpl == 0)
        leave_unsupported(cpu, UNSUPPORTED_V86);
    to = check_return(cpu, selector, eip);
    mask = loadable_flags(cpu, bits); /* by the CPL that is left */
    if (to.cpl > cpu->state.cpl) {
        u32 pointer = stack_read(cpu, bits, 3 * size);
        Stack stack = check_outer_stack(cpu, stack_read(cpu, bits, 4 * size), pointer, to.cpl);
        return_outer(cpu, &to, &stack, 0);
    } else {
        return_same(cpu, &to, 3 * size);
    }
    load_flags(cpu, mask, image);
}
