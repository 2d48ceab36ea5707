/*
 * execute.c - the dispatch loop.
 *
 * execute runs blocks from state.eip until something needs the outer loop (run.c): ticks run out,
 * a stop is due, or an instruction leaves by longjmp. Dispatch is threaded: each case ends in a jump
 * through `labels` to the next instruction's case. Hot cases are generated around the instruction
 * bodies (isa_cases.h); every other instruction is a call through cold_ops (cold.c). `in` and `block`
 * are all the loop keeps; registers live in CpuState.
 *
 * The jumps take two forms. For gcc the cases are labels in one function. clang takes minutes over
 * 1,400 labels, or cases of a switch, that all lead to one another: for it each is a function, and
 * the jump a tail call.
 *
 * What the loop adds to the bodies: a block's ticks and cycles are charged when it is entered (run.c
 * gives back what a fault leaves undone), and blocks are left in one of three ways: TAKE along one of
 * their two links, INDIRECT by state.eip, `dispatch` after an instruction that may have changed more
 * than EIP. The first two are repeated in each case that needs them, so that each has a branch of its
 * own for the host to predict. Read run.c next.
 */
#include "chain.h"
#include "cold.h"
#include "isa_ops.h"
#include "ops_arith.h"
#include "ops_bits.h"
#include "ops_control.h"
#include "ops_data.h"
#include "ops_logic.h"

/* Whether the outer loop has to look at the CPU before the next block. When ticks have run out the
   next instruction is not even fetched: it may fault. */
INLINE bool needs_attention(const Cpu *cpu) {
    return (cpu->left <= 0) | (cpu->mode & MODE_STEP) | cpu->state.interrupt_shadow |
           (cpu->state.interrupt_line && cpu->state.eflags & FLAG_IF) | cpu->stop_pending |
           (cpu->trace_count > TRACE_RING / 2);
}

/* Look the link's target up and chain it, unless the outer loop is wanted: then NULL. */
static NOINLINE Block *follow_slowly(Cpu *cpu, Link *link) {
    u64 flushes = cpu->machine->stats.cache_flushes;
    bool alive = cpu->block->mode != MODE_DEAD && chainable(cpu->block);
    Block *target;
    /* A jump beyond the limit is the jump's fault; to fall off the end is the next instruction's. */
    if (unlikely(cpu->mode & (MODE_LIMITED | MODE_CUT)) && link == &cpu->block->out[0] &&
        cpu->current->op != OP_END)
        check_target(cpu, cpu->current, link->eip);
    cpu->state.eip = link->eip;
    cpu->block = NULL;
    cpu->current = NULL;
    if (needs_attention(cpu)) return NULL;
    target = block_lookup(cpu);
    if (alive && flushes == cpu->machine->stats.cache_flushes)
        chain_connect(cpu->machine, link, target);
    return target;
}

/* The block at state.eip, unless the outer loop is wanted: then NULL. */
static NOINLINE Block *look_up(Cpu *cpu) {
    cpu->block = NULL;
    cpu->current = NULL;
    if (needs_attention(cpu)) return NULL;
    return block_lookup(cpu);
}

/* A target beyond the limit is the RET's fault: ESP is as it was. */
static NOINLINE void return_check(Cpu *cpu, const Insn *in) {
    u32 released = (in->flags & INSN_OPERAND16 ? 2 : 4) + in->immediate;
    if (likely(cpu->state.eip <= cpu->state.seg[SEG_CS].limit)) return;
    set_stack_pointer(cpu, cpu->state.gpr[ESP] - released);
    cpu->current = in;
    raise_error(cpu, VECTOR_GP, 0);
}

/* Go to the next instruction's case; run.c stops the machine by overwriting its op. */
#define NEXT      \
    do {          \
        in++;     \
        DISPATCH; \
    } while (0)

#ifndef __clang__ /* -- Labels -------------------------------------------------------------- */

#define CASE(label) \
    label:
#define LABEL(label) &&label
#define DISPATCH goto *labels[in->op]

/* Charge the block and go to its first instruction. */
#define ENTER                                      \
    do {                                           \
        i64 left = cpu->left - block->ticks;       \
        if (unlikely(left < 0)) goto out_of_ticks; \
        cpu->left = left;                          \
        cpu->state.cycle += block->cycles;         \
        cpu->block = block;                        \
        in = block->insns;                         \
        DISPATCH;                                  \
    } while (0)

/* Leave the block along one of its links. */
#define TAKE(n)                                    \
    do {                                           \
        link = &block->out[n];                     \
        Block *target = chain_follow(cpu, link);   \
        if (unlikely(target == NULL)) goto follow; \
        block = target;                            \
        ENTER;                                     \
    } while (0)

/* Leave it for state.eip. */
#define INDIRECT_OR(missed)                                  \
    do {                                                     \
        Block *target = chain_indirect(cpu, cpu->state.eip); \
        if (unlikely(target == NULL)) goto missed;           \
        block = target;                                      \
        ENTER;                                               \
    } while (0)
#define INDIRECT INDIRECT_OR(dispatch)
/* The same after JMP and RET. Where a block is known to be, CS reaches; else it is looked at now. */
#define JUMP INDIRECT_OR(jumped)
#define RETURN INDIRECT_OR(returned)

void execute(Cpu *cpu) {
    static const void *const labels[OP_COUNT] = {
#include "isa_labels.h"
    };
    const Insn *in;
    Link *link;
    Block *block;

    block = block_lookup(cpu);
    ENTER;

follow:
    cpu->current = in;
    block = follow_slowly(cpu, link);
    if (block != NULL) ENTER;
    return;

jumped:
    check_target(cpu, in, cpu->state.eip);
    goto dispatch;

returned:
    return_check(cpu, in);
dispatch:
    block = look_up(cpu);
    if (block != NULL) ENTER;
    return;

out_of_ticks:
    cpu->state.eip = block->eip;
    cpu->block = NULL;
    cpu->current = NULL;
    return;

cold:
    cpu->current = in;
    cold_ops[in->op - OP_FIRST_COLD](cpu, in);
    NEXT;
cold_end:
    cpu->current = in;
    cpu->state.eip = cpu->block->eip + in->offset + in->length;
    cold_ops[in->op - OP_FIRST_COLD](cpu, in);
    goto dispatch;

#include "isa_cases.h"
}

#else /* -- Functions ---------------------------------------------------------------------- */

#define CASE(label) static void label(Cpu *cpu, const Insn *in)
#define LABEL(label) label
#define DISPATCH __attribute__((musttail)) return labels[in->op](cpu, in)

typedef void Label(Cpu *cpu, const Insn *in);
static Label *const labels[OP_COUNT];

/* Charge the block. Its first instruction, or NULL if there is no block or no ticks for it. */
INLINE const Insn *enter(Cpu *cpu, Block *block) {
    i64 left;
    if (unlikely(block == NULL)) return NULL;
    left = cpu->left - block->ticks;
    if (unlikely(left < 0)) {
        cpu->state.eip = block->eip;
        cpu->block = NULL;
        cpu->current = NULL;
        return NULL;
    }
    cpu->left = left;
    cpu->state.cycle += block->cycles;
    cpu->block = block;
    return block->insns;
}

/* The first instruction of the block that a link leads to, or of the one at state.eip. */
INLINE const Insn *take(Cpu *cpu, const Insn *in, u32 n) {
    Link *link = &cpu->block->out[n];
    Block *target = chain_follow(cpu, link);
    if (likely(target != NULL)) return enter(cpu, target);
    cpu->current = in;
    return enter(cpu, follow_slowly(cpu, link));
}

INLINE const Insn *indirect(Cpu *cpu) {
    Block *target = chain_indirect(cpu, cpu->state.eip);
    return enter(cpu, likely(target != NULL) ? target : look_up(cpu));
}

/* The same after JMP and RET, whose targets are looked at where no block is known to be. */
INLINE const Insn *jump(Cpu *cpu, const Insn *in) {
    Block *target = chain_indirect(cpu, cpu->state.eip);
    if (likely(target != NULL)) return enter(cpu, target);
    check_target(cpu, in, cpu->state.eip);
    return enter(cpu, look_up(cpu));
}

INLINE const Insn *jump_back(Cpu *cpu, const Insn *in) {
    Block *target = chain_indirect(cpu, cpu->state.eip);
    if (likely(target != NULL)) return enter(cpu, target);
    return_check(cpu, in);
    return enter(cpu, look_up(cpu));
}

#define GO(first)                         \
    do {                                  \
        in = first;                       \
        if (unlikely(in == NULL)) return; \
        DISPATCH;                         \
    } while (0)
#define TAKE(n) GO(take(cpu, in, n))
#define INDIRECT GO(indirect(cpu))
#define JUMP GO(jump(cpu, in))
#define RETURN GO(jump_back(cpu, in))

CASE(cold) {
    cpu->current = in;
    cold_ops[in->op - OP_FIRST_COLD](cpu, in);
    NEXT;
}

CASE(cold_end) {
    cpu->current = in;
    cpu->state.eip = cpu->block->eip + in->offset + in->length;
    cold_ops[in->op - OP_FIRST_COLD](cpu, in);
    GO(enter(cpu, look_up(cpu)));
}

#include "isa_cases.h"

static Label *const labels[OP_COUNT] = {
#include "isa_labels.h"
};

void execute(Cpu *cpu) {
    const Insn *in = enter(cpu, block_lookup(cpu));
    if (in != NULL) labels[in->op](cpu, in);
}

#endif
