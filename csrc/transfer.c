/*
 * transfer.c - stacks of events and far calls.
 *
 * When privilege rises the new stack comes from the TSS (SDM vol. 3, 5.8.5). Its selector and room
 * are checked, and its pages probed, before a byte is pushed. Pushes go with the rights of the
 * privilege level that is entered, which may not be the CPL. Read far.c next.
 */
#include "transfer.h"

u32 load_tss(Cpu *cpu, u32 offset, u32 size) {
    return load_system(cpu, cpu->state.tr.base + offset, size);
}

Stack stack_in_use(const Cpu *cpu) {
    Stack stack;
    memset(&stack, 0, sizeof stack);
    stack.segment = cpu->state.seg[SEG_SS];
    stack.pointer = cpu->state.gpr[ESP];
    stack.cpl = cpu->state.cpl;
    return stack;
}

/* SS:ESP of a level, from a 32-bit TSS or the 16-bit one of the 80286. */
static u32 read_stack_pointer(Cpu *cpu, u32 level, u32 ext, u32 *selector) {
    const Segment *tss = &cpu->state.tr;
    bool wide = (tss->attributes & ATTR_TYPE) == TYPE_TSS32_BUSY;
    u32 at = wide ? level * 8 + 4 : level * 4 + 2;
    u32 pointer_bytes = wide ? 4 : 2;
    u32 pointer;
    if ((tss->attributes & ATTR_UNUSABLE) || at + pointer_bytes + 1 > tss->limit)
        raise_error(cpu, VECTOR_TS, (tss->selector & 0xFFFC) | ext);
    pointer = load_tss(cpu, at, pointer_bytes);
    *selector = load_tss(cpu, at + pointer_bytes, 2);
    return pointer;
}

Stack stack_of_level(Cpu *cpu, u32 level, u32 ext) {
    Stack stack;
    u32 selector, error;
    Descriptor d;
    stack.pointer = read_stack_pointer(cpu, level, ext, &selector);
    error = (selector & 0xFFFC) | ext;
    if (is_null(selector)) raise_error(cpu, VECTOR_TS, ext);
    d = fetch_descriptor_ext(cpu, selector, VECTOR_TS, ext);
    if ((selector & SELECTOR_RPL) != level || descriptor_dpl(d) != level || !is_writable_data(d))
        raise_error(cpu, VECTOR_TS, error);
    if (!is_present(d)) raise_error(cpu, VECTOR_SS, error);
    stack.segment = segment_of(selector, d);
    stack.segment.attributes |= ATTR_ACCESSED; /* as it will be when it is installed */
    stack.cpl = level;
    stack.selector = selector & 0xFFFC;
    stack.descriptor = d;
    return stack;
}

static u32 pointer_mask(const Stack *stack) {
    return stack->segment.attributes & ATTR_BIG ? 0xFFFFFFFFu : 0xFFFF;
}

static void reserve(Cpu *cpu, const Stack *stack, u32 offset, u32 size, u32 ext) {
    if (!within_limit(&stack->segment, offset, size))
        raise_error(cpu, VECTOR_SS, stack->selector | ext);
    if (stack->cpl == 3) check_alignment(cpu, stack->segment.base + offset, size);
    probe_store(cpu, stack->segment.base + offset, size, stack->cpl == 3);
}

void stack_reserve(Cpu *cpu, const Stack *stack, u32 count, u32 bits, u32 ext) {
    u32 mask = pointer_mask(stack);
    u32 size = bits / 8;
    u32 lowest = (stack->pointer - count * size) & mask;
    u32 highest = (stack->pointer - size) & mask;
    u32 base = stack->segment.base, i;
    bool wraps = lowest > highest; /* the pointer does, on its way down */
    if (!wraps && !within_limit(&stack->segment, lowest, count * size))
        raise_error(cpu, VECTOR_SS, stack->selector | ext);
    if (!wraps && PAGE_OF(base + lowest) == PAGE_OF(base + highest + size - 1)) {
        reserve(cpu, stack, highest, size, ext);
        return;
    }
    for (i = 1; i <= count; i++) /* in the order of the pushes: the first to fail is reported */
        reserve(cpu, stack, (stack->pointer - i * size) & mask, size, ext);
}

void stack_write(Cpu *cpu, Stack *stack, u32 bits, u32 value) {
    u32 mask = pointer_mask(stack);
    u32 pointer = stack->pointer - bits / 8;
    stack->pointer = (stack->pointer & ~mask) | (pointer & mask);
    store_as(cpu, stack->segment.base + (pointer & mask), bits / 8, value, stack->cpl == 3);
}

void stack_install(Cpu *cpu, const Stack *stack) {
    cpu->state.seg[SEG_SS] = stack->segment;
    cpu->state.gpr[ESP] = stack->pointer;
}
