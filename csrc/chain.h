/*
 * chain.h - chaining: going from block to block without a lookup.
 *
 * A direct jump's target is known when its block is decoded. The first time it is taken, block_lookup
 * finds or decodes the successor and `chain_connect` writes it into the jump's Link; from then on
 * the executor follows the pointer. Three things could make that wrong:
 *
 *   - the successor is dropped (its bytes change): chain_disconnect clears every link that leads to
 *     it, found by the list of its incoming links;
 *   - the page tables change, so the same EIP is other code: links within a page cannot be hit,
 *     for executing there at all means that page's translation holds; others compare the TLB's
 *     machine page with the block's on each passage;
 *   - the mode word changes: only instructions that end a block without a link change it.
 *
 * Blocks under MODE_LIMITED or MODE_STEP, and blocks that reach into a second page, are not chained.
 * Indirect jumps and returns look in a small cache by EIP, under the same checks.
 */
#ifndef SEVENTEEN_CHAIN_H
#define SEVENTEEN_CHAIN_H

#include "tlb.h"

/* Whether executing `block` at its EIP is what the page tables mean now. */
INLINE bool chain_valid(const Cpu *cpu, const Block *block) {
    const CodeTlbEntry *entry = &cpu->code_tlb[(block->eip >> 12) & (TLB_SIZE - 1)];
    return entry->tag == tlb_tag(cpu, block->eip) && entry->machine == PAGE_OF(block->machine);
}

/* The successor to go to, or NULL: then it must be looked up. */
INLINE Block *chain_follow(const Cpu *cpu, const Link *link) {
    Block *target = link->target;
    if (likely(target != NULL) && (likely(link->same_page) || chain_valid(cpu, target)))
        return target;
    return NULL;
}

INLINE Block **jump_slot(Cpu *cpu, u32 eip) {
    return &cpu->jump_cache[(eip ^ eip >> 12) & (JUMP_CACHE - 1)];
}

/* The block at an EIP reached indirectly, or NULL. */
INLINE Block *chain_indirect(Cpu *cpu, u32 eip) {
    Block *block = *jump_slot(cpu, eip);
    if (likely(block != NULL) && block->eip == eip && block->mode == cpu->mode &&
        chain_valid(cpu, block))
        return block;
    return NULL;
}

INLINE bool chainable(const Block *block) {
    return !(block->mode & (MODE_LIMITED | MODE_STEP)) && block->machine2 == ~0u &&
           !block->transient;
}

INLINE void chain_connect(Machine *machine, Link *link, Block *target) {
    if (link->target != NULL || !chainable(target)) return;
    link->target = target;
    link->next_incoming = target->incoming;
    target->incoming = link;
    machine->stats.chains_made++;
}

/* Take one link off its target's list. */
INLINE void chain_unlink(Link *link) {
    if (link->target == NULL) return;
    Link **at = &link->target->incoming;
    while (*at != link) at = &(*at)->next_incoming;
    *at = link->next_incoming;
    link->target = NULL;
}

/* No one leads to this block any more, and it leads to none. */
INLINE void chain_disconnect(Block *block) {
    while (block->incoming != NULL) {
        Link *link = block->incoming;
        block->incoming = link->next_incoming;
        link->target = NULL;
    }
    chain_unlink(&block->out[0]);
    chain_unlink(&block->out[1]);
}

#endif
