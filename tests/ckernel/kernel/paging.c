/*
 * paging.c - pages of 4 MiB and of 4 KiB, and what ring 0 may do with them.
 *
 * The first 16 MiB and both APICs are mapped one to one by large pages, from now to the end; at WINDOW
 * a table of small ones has what the checks need. Source: SDM volume 3, 4.3 and 4.6. Next: apic.c.
 */
#include "kernel.h"

enum {
    PRESENT = 1,
    WRITABLE = 2,
    UNCACHED = 0x18,
    ACCESSED = 0x20,
    DIRTY = 0x40,
    LARGE = 0x80,
    SIZE = 4096,
    LARGE_SIZE = 4 << 20,
    WINDOW = 0x40000000,
    HIGH = 0x50000000,
    PSE = 0x10
};
static const u32 PG = 1u << 31, WP = 1 << 16;
static const u32 NO_FAULT = ~0u;

static u32 directory[1024] __attribute__((aligned(SIZE)));
static u32 table[1024] __attribute__((aligned(SIZE)));
static u32 page[1024] __attribute__((aligned(SIZE)));

static void load_cr3(void) {
    __asm__ volatile("mov %0, %%cr3" : : "r"(directory) : "memory");
}

static void set_cr0(u32 set, u32 clear) {
    u32 value;
    __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    __asm__ volatile("mov %0, %%cr0" : : "r"((value | set) & ~clear) : "memory");
}

/* The error code of the page fault that an access meets, or NO_FAULT. */
static u32 store(u32 address, u32 value) {
    fault_error = NO_FAULT;
    __asm__ volatile("movl $1f, %0\n\t"
                     "movl %2, (%1)\n"
                     "1:\n\t"
                     "movl $0, %0"
                     : "=m"(resume)
                     : "r"(address), "r"(value)
                     : "memory");
    return fault_error;
}

static u32 load(u32 address, u32 *value) {
    u32 found = 0;
    fault_error = NO_FAULT;
    __asm__ volatile("movl $1f, %0\n\t"
                     "movl (%2), %1\n"
                     "1:\n\t"
                     "movl $0, %0"
                     : "=m"(resume), "+r"(found)
                     : "r"(address)
                     : "memory");
    *value = found;
    return fault_error;
}

static void map(u32 index, u32 entry) {
    table[index] = entry;
    __asm__ volatile("invlpg (%0)" : : "r"(WINDOW + index * SIZE) : "memory");
}

static void start(void) {
    u32 cr4;
    for (u32 i = 0; i < 4; i++) directory[i] = (i * LARGE_SIZE) | LARGE | WRITABLE | PRESENT;
    directory[io_apic >> 22] = (io_apic & 0xFFC00000) | LARGE | UNCACHED | WRITABLE | PRESENT;
    directory[local_apic >> 22] |=
        (local_apic & 0xFFC00000) | LARGE | UNCACHED | WRITABLE | PRESENT;
    directory[WINDOW >> 22] = (u32)table | WRITABLE | PRESENT;
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | PSE));
    load_cr3();
    set_cr0(PG | WP, 0);
}

static void check_large(void) {
    u32 value, *entry = &directory[HIGH >> 22];
    page[5] = 0x12345678;
    check("paging: nothing is mapped there", load(HIGH, &value), 0);
    check("paging: CR2 says where", fault_address, HIGH);
    *entry = LARGE | PRESENT;
    check("paging: a large page", load(HIGH + (u32)&page[5], &value), NO_FAULT);
    check("paging: shows what lies below", value, 0x12345678);
    check("paging: is marked", *entry, LARGE | PRESENT | ACCESSED);
    check("paging: read-only", store(HIGH + (u32)&page[5], 1), 3);
    *entry |= WRITABLE;
    load_cr3();
    check("paging: writable", store(HIGH + (u32)&page[5], 0x9ABCDEF0), NO_FAULT);
    check("paging: is written to", page[5], 0x9ABCDEF0);
    check("paging: is marked as that", *entry, LARGE | PRESENT | WRITABLE | ACCESSED | DIRTY);
    *entry = 0;
    load_cr3();
    check("paging: gone again", store(HIGH + (u32)&page[5], 1), 2);
    check("paging: CR2 again", fault_address, HIGH + (u32)&page[5]);
}

static void check_small(void) {
    u32 value, at = WINDOW + 7 * SIZE, entry = (u32)page | PRESENT;
    check("paging: no small page", store(at, 1), 2);
    map(7, entry);
    page[0] = 77;
    check("paging: one to read", load(at, &value), NO_FAULT);
    check("paging: what it shows", value, 77);
    check("paging: it is marked", table[7], entry | ACCESSED);
    check("paging: ring 0 heeds read-only pages", store(at, 78), 3);
    check("paging: that was a page fault", fault_vector, 14);
    set_cr0(0, WP);
    check("paging: without CR0.WP it does not", store(at, 79), NO_FAULT);
    check("paging: it was written to", page[0], 79);
    check("paging: marked", table[7], entry | ACCESSED | DIRTY);
    set_cr0(WP, 0);
    check("paging: with it, it does", store(at, 80), 3);
    map(7, entry | WRITABLE);
    check("paging: writable pages", store(at, 81), NO_FAULT);
    map(8, ((u32)page | WRITABLE | PRESENT));
    check("paging: two names", load(at + SIZE, &value), NO_FAULT);
    check("paging: of one page", value, 81);
    map(8, 0);
    check("paging: one name less", load(at + SIZE, &value), 0);
    directory[WINDOW >> 22] &= ~(u32)WRITABLE;
    load_cr3();
    check("paging: the directory forbids", store(at, 82), 3);
    directory[WINDOW >> 22] |= WRITABLE;
    load_cr3();
}

void check_paging(void) {
    start();
    check_large();
    check_small();
}
