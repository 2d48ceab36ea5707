/*
 * block.c - the block cache: code decoded once, found again, dropped when its bytes change.
 *
 * A block is a straight run of instructions up to a jump (or BLOCK_INSNS). Its key is the machine
 * address of its first byte, its EIP and the mode word: so one frame mapped twice is decoded twice
 * but dropped together, since every block is on the list of its machine page. A page that holds
 * blocks carries PAGE_CODE; stores to it take the slow path of memory.c, which calls block_store.
 * Only an instruction that starts a block may cross into a second page, so the fetch fault of a
 * page is raised when execution arrives there, not earlier.
 *
 * Blocks live in one arena; when it is full all of them are forgotten. Read chain.h next, then
 * execute.c.
 */
#include <assert.h>
#include <stdlib.h>

#include "chain.h"
#include "isa_ops.h"
#include "operand.h"

enum {
    GRANULE = 32,
    MOST_SLOTS = 3 * BLOCK_INSNS + 2,
    NO_PAGE = 0xFFFFFFFFu,
    NO_TRANSLATION = 0xFFFFFFFFu,
    LOOKAHEAD = 15
};

static u32 hash_of(u32 machine, u32 eip, u32 mode) {
    return (machine ^ eip >> 12 ^ mode << 9) & (BLOCK_HASH - 1);
}

/* -- Pages: which blocks have bytes in them -------------------------------------------------- */

/* The link of `block` on the list of `page`. */
static Block **on_page(Block *block, u32 page) {
    return &block->next_page[block->machine >> 12 == page ? 0 : 1];
}

/* The bytes of `block` in `page`: [*from, *to). */
static void bytes_on_page(const Block *block, u32 page, u32 *from, u32 *to) {
    u32 start = block->machine & PAGE_MASK;
    u32 end = start + block->length;
    if (block->machine >> 12 == page) {
        *from = start;
        *to = end > PAGE_SIZE ? PAGE_SIZE : end;
    } else {
        *from = 0;
        *to = end - PAGE_SIZE;
    }
}

static void mark_granules(Machine *machine, const Block *block, u32 page) {
    u32 from, to;
    bytes_on_page(block, page, &from, &to);
    for (u32 g = from / GRANULE; g <= (to - 1) / GRANULE; g++)
        machine->code_map[page][g / 8] |= (u8)(1 << g % 8);
}

static void enter_page(Machine *machine, Block *block, u32 page) {
    *on_page(block, page) = machine->page_blocks[page];
    machine->page_blocks[page] = block;
    mark_granules(machine, block, page);
    if (machine->page_flags[page] & PAGE_CODE) return;
    machine->page_flags[page] |= PAGE_CODE;
    tlb_drop_writes(machine, page << 12);
}

static void leave_page(Machine *machine, Block *block, u32 page) {
    Block **at = &machine->page_blocks[page];
    while (*at != block) at = on_page(*at, page);
    *at = *on_page(block, page);
    memset(machine->code_map[page], 0, sizeof machine->code_map[page]);
    for (Block *b = machine->page_blocks[page]; b; b = *on_page(b, page))
        mark_granules(machine, b, page);
    if (machine->page_blocks[page] == NULL) machine->page_flags[page] &= (u8)~PAGE_CODE;
}

static void drop(Machine *machine, Block *block) {
    Block **at = &machine->hash[hash_of(block->machine, block->eip, block->mode)];
    while (*at != block) at = &(*at)->next_hash;
    *at = block->next_hash;
    leave_page(machine, block, block->machine >> 12);
    if (block->machine2 != NO_PAGE) leave_page(machine, block, block->machine2 >> 12);
    chain_disconnect(block);
    block->mode = MODE_DEAD;
    machine->stats.blocks_dropped++;
}

static bool touches_code(const Machine *machine, u32 page, u32 from, u32 to) {
    for (u32 g = from / GRANULE; g <= (to - 1) / GRANULE; g++)
        if (machine->code_map[page][g / 8] & 1 << g % 8) return true;
    return false;
}

void block_store(Machine *machine, u32 address, u32 size) {
    while (size > 0) {
        u32 page = address >> 12, from = address & PAGE_MASK;
        u32 step = PAGE_SIZE - from < size ? PAGE_SIZE - from : size, to = from + step;
        if (page < machine->pages && touches_code(machine, page, from, to)) {
            Block *next;
            for (Block *block = machine->page_blocks[page]; block; block = next) {
                u32 first, last;
                next = *on_page(block, page);
                bytes_on_page(block, page, &first, &last);
                if (first < to && from < last) drop(machine, block);
            }
            machine->stats.invalidating_stores++;
        }
        address += step;
        size -= step;
    }
}

void block_flush(Machine *machine) {
    for (u32 i = 0; i < BLOCK_HASH; i++) {
        for (Block *block = machine->hash[i]; block; block = block->next_hash) {
            u32 pages[2] = {block->machine >> 12, block->machine2 >> 12};
            for (u32 n = 0; n < (block->machine2 == NO_PAGE ? 1u : 2u); n++) {
                machine->page_blocks[pages[n]] = NULL;
                machine->page_flags[pages[n]] &= (u8)~PAGE_CODE;
                memset(machine->code_map[pages[n]], 0, sizeof machine->code_map[0]);
            }
            block->mode = MODE_DEAD;
        }
        machine->hash[i] = NULL;
    }
    for (Cpu *cpu = machine->cpus; cpu; cpu = cpu->next)
        memset(cpu->jump_cache, 0, sizeof cpu->jump_cache);
    machine->arena_used = 0;
    machine->stats.cache_flushes++;
}

void block_forget_weights(Machine *machine, u32 address, u32 size) {
    u8 *bits = machine->weights ? machine->weights[address >> 12] : NULL;
    for (u32 at = address & PAGE_MASK; bits != NULL && size > 0 && at < PAGE_SIZE; at++, size--)
        bits[at / 8] &= (u8) ~(1u << at % 8);
}

/* -- Decoding a block ------------------------------------------------------------------------- */

/* Machine address of a code byte; raises #PF. */
static u32 fetch_translate(Cpu *cpu, u32 linear) {
    const CodeTlbEntry *entry = &cpu->code_tlb[(linear >> 12) & (TLB_SIZE - 1)];
    if (likely(plain_tag(entry->tag) == tlb_tag(cpu, linear)))
        return entry->machine | (linear & PAGE_MASK);
    return translate(cpu, linear, ACCESS_FETCH | (cpu->state.cpl == 3 ? ACCESS_USER : 0));
}

/* Bytes that may be decoded at state.eip: in `bytes`, up to the end of the page, of the segment,
   or LOOKAHEAD past the page for the first instruction. */
typedef struct {
    const u8 *code;
    u32 size;              /* within the first page */
    u32 machine;           /* of the first byte */
    u64 limit;             /* bytes before the CS limit ends */
    u8 outside[PAGE_SIZE]; /* what reads as code where there is no memory */
} Window;

static void open_window(Cpu *cpu, Window *window) {
    u32 linear = cpu->state.seg[SEG_CS].base + cpu->state.eip;
    window->limit = cpu->state.eip > cpu->state.seg[SEG_CS].limit
                        ? 0
                        : (u64)cpu->state.seg[SEG_CS].limit - cpu->state.eip + 1;
    if (window->limit == 0) raise_error(cpu, VECTOR_GP, 0);
    window->machine = fetch_translate(cpu, linear);
    window->size = PAGE_SIZE - (window->machine & PAGE_MASK);
    window->code = machine_pointer(cpu->machine, window->machine);
    if (window->code == NULL) {
        memset(window->outside, 0xFF, sizeof window->outside);
        window->code = window->outside;
    }
    if (window->size > window->limit) window->size = (u32)window->limit;
}

/* Decode the first instruction where it crosses into the next page; raises its faults. */
static u32 decode_across(Cpu *cpu, const Window *window, Insn *in, u32 *machine2) {
    u8 code[2 * LOOKAHEAD];
    u32 eip = cpu->state.eip, size = window->size;
    int result;
    if (window->size >= window->limit) raise_error(cpu, VECTOR_GP, 0);
    *machine2 = fetch_translate(cpu, cpu->state.seg[SEG_CS].base + eip + size);
    memcpy(code, window->code, size);
    for (u32 i = 0; i < LOOKAHEAD && size + i < window->limit; i++) {
        const u8 *at = machine_pointer(cpu->machine, *machine2 + i);
        code[window->size + i] = at ? *at : 0xFF;
        size = window->size + i + 1;
    }
    result = decode(code, size, eip, cpu->mode, cpu->state.cr0, in);
    if (result < 0) raise_error(cpu, VECTOR_GP, 0);
    if (result == VECTOR_GP) raise_error(cpu, VECTOR_GP, 0);
    if (result > 0) raise_fault(cpu, (u32)result);
    return in->length;
}

/* Blocks are every CPU's: what one of them has to stop at is marked for all, and each asks whether
   it is its own when it gets there (run.c). */
static bool is_marked(const Machine *machine, u32 linear) {
    for (const Cpu *cpu = machine->cpus; cpu; cpu = cpu->next)
        if (is_breakpoint(cpu, linear) || debug_marks_code(cpu, linear)) return true;
    return false;
}

static bool is_guarded(const Machine *machine, u32 row) {
    for (const Cpu *cpu = machine->cpus; cpu; cpu = cpu->next) {
        const Intercepts *intercepts = &cpu->state.intercepts;
        if ((intercepts->rows[row / 8] | intercepts->gp_rows[row / 8]) & 1 << row % 8) return true;
    }
    return false;
}

/* A call beyond the limit faults before it pushes. Where blocks are decoded for one limit, that is
   known now. */
static bool calls_past_end(const Cpu *cpu, const Insn *in) {
    return in->op == OP_CALL && cpu->mode & MODE_CUT &&
           in->immediate > cpu->state.seg[SEG_CS].limit;
}

/* Does the instruction that starts `offset` bytes into the block take no tick? Bytes in a second page
   are those of the first instruction. */
static bool is_weightless(const Machine *machine, const Block *block, u32 offset) {
    u32 address = block->machine + offset;
    const u8 *bits;
    if (likely(machine->weights == NULL) || address >> 12 >= machine->pages) return false;
    bits = machine->weights[address >> 12];
    return bits != NULL && bits[(address & PAGE_MASK) / 8] >> (address & 7) & 1;
}

/* Append an instruction, and before it what must be checked each time it is reached. */
static void append(Cpu *cpu, Block *block, Insn in, u32 *slot) {
    Insn marker = {
        .row = in.row, .tick = block->ticks, .offset = block->length, .length = in.length};
    u32 linear = cpu->state.seg[SEG_CS].base + block->eip + block->length;
    in.tick = block->ticks;
    in.offset = block->length;
    if (is_weightless(cpu->machine, block, block->length)) in.flags |= INSN_WEIGHTLESS;
    if (is_marked(cpu->machine, linear)) {
        marker.op = OP_BREAK;
        block->insns[(*slot)++] = marker;
    }
    if (is_guarded(cpu->machine, in.row) || calls_past_end(cpu, &in)) {
        marker.op = OP_GUARD;
        if (in.op == OP_CALL) marker.immediate = in.immediate;
        block->insns[(*slot)++] = marker;
    }
    block->insns[(*slot)++] = in;
    block->length = (u16)(block->length + in.length);
    block->cycles += cpu->machine->row_cycles[in.row];
    if (!(in.flags & INSN_WEIGHTLESS)) block->ticks++;
    block->count++;
}

/* Instructions from the window into the block; returns the number of slots used. */
static u32 decode_run(Cpu *cpu, const Window *window, Block *block) {
    u32 most = cpu->mode & MODE_STEP ? 1 : BLOCK_INSNS, slot = 0;
    Insn in;
    do {
        u32 at = block->length;
        int result = decode(window->code + at, window->size - at, block->eip + at, cpu->mode,
                            cpu->state.cr0, &in);
        if (result != 0 && block->count > 0) break;
        if (result == VECTOR_GP) raise_error(cpu, VECTOR_GP, 0);
        if (result > 0) raise_fault(cpu, (u32)result);
        if (result < 0) {
            decode_across(cpu, window, &in, &block->machine2);
            append(cpu, block, in, &slot);
            break;
        }
        if (window->machine == NO_PAGE) in.length = (u8)cpu->inline_length;
        append(cpu, block, in, &slot);
    } while (!(in.flags & INSN_ENDS) && block->count < most && block->length < window->size);
    return slot;
}

/*
 * The loop counts ticks, and enters a block when there are as many as it takes. Where the last
 * instruction has no weight that is not enough: it must not run once the limit is reached, and a loop
 * of such blocks would never end. They begin with an op of their own that asks (run.c). A block of
 * one step is the outer loop's business.
 */
static u32 add_poll(Cpu *cpu, Block *block, u32 slots) {
    const Insn *last = &block->insns[slots - 1];
    if (likely(!(last->flags & INSN_WEIGHTLESS)) || cpu->mode & MODE_STEP) return slots;
    memmove(&block->insns[1], &block->insns[0], slots * sizeof(Insn));
    block->insns[0] = (Insn){.op = OP_POLL};
    return slots + 1;
}

/* Flags that the instruction reads. A shift by none keeps the flags, as if it had read them; a
   shift by CL, which has no immediate, may be one. */
static u32 flags_read(const RowFacts *facts, const Insn *in) {
    u32 flags = in->immediate & 31 ? facts->flags_read_counted : facts->flags_read;
    return flags & FLAG_ARITHMETIC;
}

/* Where flags that one instruction writes are written again before anything reads them, or can
   fault or exit and so show them, take the op that does not write them. A store may end the block
   right after itself - into code, a device, a watched page - so its own flags are always wanted. */
static void remove_dead_flags(Block *block, u32 slots) {
    u32 wanted = FLAG_ARITHMETIC;
    for (u32 i = slots; i-- > 0;) {
        Insn *in = &block->insns[i];
        if (in->op <= OP_BREAK) {
            wanted = FLAG_ARITHMETIC;
            continue;
        }
        const RowFacts *facts = &row_facts[in->row];
        u32 written = facts->flags_written & FLAG_ARITHMETIC;
        bool silent = facts->pure == PURE || (facts->pure == PURE_REGISTER && in->form == FORM_REG);
        bool may_leave = facts->stores && in->form != FORM_REG;
        if (written && !(written & wanted) && !may_leave)
            in->op = row_ops[in->row][in->flags & INSN_OPERAND16 ? 1 : 0][in->form][1];
        wanted = silent ? (wanted & ~written) | flags_read(facts, in) : FLAG_ARITHMETIC;
    }
}

/* With a watchpoint any access may be the last before an exit, also a load: nothing is dead then, and
   an instruction is by itself. */
static bool is_watched(const Machine *machine) {
    for (const Cpu *cpu = machine->cpus; cpu; cpu = cpu->next)
        if (cpu->watchpoint_count) return true;
    return false;
}

/* A comparison and the conditional jump that ends the block become one op; the jump stays behind it
   as the instruction that EIP and ticks speak of. */
static void fuse(Block *block, u32 slots) {
    Insn *jump = &block->insns[slots - 1], *before = jump - 1;
    if (slots < 2 || jump->op < OP_JCC || jump->op >= OP_JCC + 16) return;
    if (before->op < OP_FIRST_COLD && fused_ops[before->op])
        before->op = (u16)(fused_ops[before->op] + jump->cc);
}

/* Where control goes from the end of the block, if that is known now. */
static void set_links(Block *block, const Insn *last) {
    u32 after = block->eip + block->length;
    block->out[0] = (Link){.eip = last->op == OP_END ? after : last->immediate};
    block->out[1] = (Link){.eip = after};
    for (u32 i = 0; i < 2; i++)
        block->out[i].same_page = PAGE_OF(block->out[i].eip) == PAGE_OF(block->eip);
}

static Block *allocate(Machine *machine) {
    size_t most = sizeof(Block) + MOST_SLOTS * sizeof(Insn);
    if (machine->arena_used + most > ARENA_BYTES) block_flush(machine);
    return (Block *)(machine->arena + machine->arena_used);
}

static Block *build(Cpu *cpu, const Window *window) {
    Machine *machine = cpu->machine;
    Block *block = allocate(machine);
    const Insn *last;
    u32 slots;
    *block = (Block){
        .machine = window->machine, .eip = cpu->state.eip, .mode = cpu->mode, .machine2 = NO_PAGE};
    slots = decode_run(cpu, window, block);
    block->machine2 = block->machine2 == NO_PAGE ? NO_PAGE : PAGE_OF(block->machine2);
    slots = add_poll(cpu, block, slots);
    if (likely(!is_watched(machine))) {
        remove_dead_flags(block, slots);
        fuse(block, slots);
    }
    last = &block->insns[slots - 1];
    if (!(last->flags & INSN_ENDS) || last->flags & (INSN_REP | INSN_REPNE))
        block->insns[slots++] = (Insn){.op = last->flags & INSN_ENDS ? OP_REPEAT : OP_END,
                                       .tick = block->ticks,
                                       .offset = block->length};
    set_links(block, &block->insns[slots - 1]);
    machine->arena_used += (sizeof(Block) + slots * sizeof(Insn) + 15) & ~(size_t)15;
    machine->stats.blocks_decoded++;
    return block;
}

/* Put a new block where it can be found and where stores to its bytes find it. */
static void publish(Machine *machine, Block *block) {
    Block **head = &machine->hash[hash_of(block->machine, block->eip, block->mode)];
    block->next_hash = *head;
    *head = block;
    enter_page(machine, block, block->machine >> 12);
    if (block->machine2 != NO_PAGE) enter_page(machine, block, block->machine2 >> 12);
}

/* Code where there is no memory is decoded each time: nothing would drop it. So is what runs on into
   its own page, mapped a second time: a block is on the list of a page once. */
static bool cacheable(const Machine *machine, const Block *block) {
    return block->machine >> 12 < machine->pages &&
           (block->machine2 == NO_PAGE ||
            (block->machine2 >> 12 < machine->pages && PAGE_OF(block->machine) != block->machine2));
}

static bool still_valid(Cpu *cpu, const Block *block) {
    u32 linear = cpu->state.seg[SEG_CS].base + block->eip;
    if (block->mode & MODE_LIMITED &&
        (u64)block->eip + block->length - 1 > cpu->state.seg[SEG_CS].limit)
        return false;
    if (block->machine2 == NO_PAGE) return true;
    return fetch_translate(cpu, PAGE_OF(linear) + PAGE_SIZE) == block->machine2;
}

static void trace_block(Cpu *cpu, const Block *block) {
    TraceRecord record = {.tick = (u64)(cpu->limit - cpu->left),
                          .kind = TRACE_BLOCK,
                          .eip = block->eip,
                          .address = block->machine,
                          .length = block->length,
                          .count = block->count};
    trace_push(cpu, &record);
}

/* A block of the one instruction that cpu_step was given. Nobody will look for it again: the
   next block may have its place. */
static Block *build_inline(Cpu *cpu) {
    Machine *machine = cpu->machine;
    size_t used = machine->arena_used;
    Window window = {.code = cpu->inline_code, .size = cpu->inline_size, .machine = NO_PAGE};
    Block *block;
    cpu->inline_code = NULL;
    block = build(cpu, &window);
    machine->arena_used = used;
    block->transient = true;
    return block;
}

Block *block_lookup(Cpu *cpu) {
    Machine *machine = cpu->machine;
    u32 eip = cpu->state.eip;
    u32 address;
    Window window;
    Block *block;
    assert(cpu->block == NULL);
    if (unlikely(cpu->breakpoint_count)) meet_breakpoint(cpu, eip);
    if (unlikely(cpu->inline_code != NULL)) return build_inline(cpu);
    machine->stats.lookups++;
    if (unlikely(eip > cpu->state.seg[SEG_CS].limit)) raise_error(cpu, VECTOR_GP, 0);
    address = fetch_translate(cpu, cpu->state.seg[SEG_CS].base + eip);
    block = machine->hash[hash_of(address, eip, cpu->mode)];
    for (; block; block = block->next_hash)
        if (block->machine == address && block->eip == eip && block->mode == cpu->mode &&
            still_valid(cpu, block))
            break;
    if (block == NULL) {
        open_window(cpu, &window);
        block = build(cpu, &window);
        block->transient = !cacheable(machine, block);
        if (!block->transient) publish(machine, block);
        if (cpu->state.trace & TRACE_BLOCK) trace_block(cpu, block);
    }
    if (chainable(block)) *jump_slot(cpu, eip) = block;
    return block;
}
