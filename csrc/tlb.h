/*
 * tlb.h - the inlined TLB lookup of every memory access.
 *
 * An access is one table entry, one comparison and one host load. The entry's tag is the linear
 * page with the address-space id in its low bits; a page that must not be reached this way (device,
 * code about to be overwritten, watched) has a tag that matches nothing. An access that crosses
 * into the next page is compared with the page of its last byte but looked up by its first, so it
 * never matches: one comparison serves both. All that misses goes to memory.c.
 *
 * Ids have 11 of the tag's low 12 bits. The twelfth is set in the tags of pages past the end of the
 * flat segments (cut.c), so these never match here either; memory.c checks limits, then takes them.
 *
 * There are two tables, for CPL 3 and below, so a change of ring costs no flush; instruction
 * fetches have two of their own. What an entry is made from is kept in cpu->walked: see paging.c.
 */
#ifndef SEVENTEEN_TLB_H
#define SEVENTEEN_TLB_H

#include "cpu.h"

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LITTLE16(x) __builtin_bswap16(x)
#define LITTLE32(x) __builtin_bswap32(x)
#else
#define LITTLE16(x) (x)
#define LITTLE32(x) (x)
#endif

/* Little-endian loads and stores of 1, 2 or 4 bytes of host memory. */
INLINE u32 host_load(const u8 *from, u32 size) {
    u16 half;
    u32 word;
    switch (size) {
    case 1: return *from;
    case 2: memcpy(&half, from, 2); return LITTLE16(half);
    default: memcpy(&word, from, 4); return LITTLE32(word);
    }
}

INLINE void host_store(u8 *to, u32 size, u32 value) {
    u16 half = LITTLE16((u16)value);
    u32 word = LITTLE32(value);
    switch (size) {
    case 1: *to = (u8)value; break;
    case 2: memcpy(to, &half, 2); break;
    default: memcpy(to, &word, 4); break;
    }
}

_Static_assert(sizeof(TlbEntry) == 16 || sizeof(void *) != 8, "tlb_entry counts on 16 bytes");

INLINE TlbEntry *tlb_entry(const Cpu *cpu, u32 linear) {
    /* &tlb[(linear >> 12) & (TLB_SIZE - 1)] with one shift less */
    u32 offset = (linear >> 8) & ((TLB_SIZE - 1) * sizeof(TlbEntry));
    return (TlbEntry *)((char *)cpu->tlb + offset);
}

INLINE u32 tlb_tag(const Cpu *cpu, u32 linear) {
    return PAGE_OF(linear) | cpu->state.space;
}

enum { TAG_GUARDED = 0x800 };

/* The tag as it is filed where pages past `end` (the last byte of a page) are guarded. */
INLINE u32 filed_tag(u32 tag, u32 end) {
    return tag > end ? tag | TAG_GUARDED : tag;
}

/* The tag whatever the guard, for those to whom limits are nothing. */
INLINE u32 plain_tag(u32 tag) {
    return tag & ~(u32)TAG_GUARDED;
}

/* `size` bytes (1, 2 or 4) at a linear address, with the rights of the current CPL. `in` is the
   instruction that accesses: should it fault, its EIP is the one reported. */
INLINE u32 load(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(entry->read_tag == tlb_tag(cpu, linear + size - 1)))
        return host_load((const u8 *)(entry->host + linear), size);
    return load_slow(cpu, in, linear, size);
}

INLINE void store(Cpu *cpu, const Insn *in, u32 linear, u32 size, u32 value) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(entry->write_tag == tlb_tag(cpu, linear + size - 1)))
        host_store((u8 *)(entry->host + linear), size, value);
    else
        store_slow(cpu, in, linear, size, value);
}

/* The same where segment_linear has seen the address: past the end of the flat segments, too. */
INLINE u32 load_any(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(plain_tag(entry->read_tag) == tlb_tag(cpu, linear + size - 1)))
        return host_load((const u8 *)(entry->host + linear), size);
    return load_slow(cpu, in, linear, size);
}

INLINE void store_any(Cpu *cpu, const Insn *in, u32 linear, u32 size, u32 value) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(plain_tag(entry->write_tag) == tlb_tag(cpu, linear + size - 1)))
        host_store((u8 *)(entry->host + linear), size, value);
    else
        store_slow(cpu, in, linear, size, value);
}

/* The same of the stack, in a flat mode word; cpu.h. */
INLINE u32 stack_load(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(entry->read_tag == tlb_tag(cpu, linear + size - 1)))
        return host_load((const u8 *)(entry->host + linear), size);
    return stack_load_slow(cpu, in, linear, size);
}

INLINE void stack_store(Cpu *cpu, const Insn *in, u32 linear, u32 size, u32 value) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(entry->write_tag == tlb_tag(cpu, linear + size - 1)))
        host_store((u8 *)(entry->host + linear), size, value);
    else
        stack_store_slow(cpu, in, linear, size, value);
}

/* A load whose store follows: faults now if the store would. */
INLINE u32 load_update(Cpu *cpu, const Insn *in, u32 linear, u32 size) {
    TlbEntry *entry = tlb_entry(cpu, linear);
    if (likely(entry->write_tag == tlb_tag(cpu, linear + size - 1)))
        return host_load((const u8 *)(entry->host + linear), size);
    return load_update_slow(cpu, in, linear, size);
}

#endif
