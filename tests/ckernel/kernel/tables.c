/*
 * tables.c - the MP configuration table: found, added up, read.
 *
 * Source: Intel MultiProcessor Specification 1.4, chapter 4. Next: paging.c.
 */
#include "kernel.h"

enum { PROCESSOR, BUS, IO_APIC, IO_INTERRUPT, LOCAL_INTERRUPT, KINDS };
enum { LINES = 16, ENABLED = 1, BOOTSTRAP = 2, VECTORED = 0, ANY = 0xFF };
enum { EXTENDED_DATA = 0x40E, BASE_MEMORY = 0x413, ROM = 0xF0000, ROM_SIZE = 0x10000 };

struct pointer {
    u32 signature, table;
    u8 paragraphs, revision, checksum, feature[5];
};

struct table {
    u32 signature;
    u16 length;
    u8 revision, checksum;
    char who[20];
    u32 oem;
    u16 oem_size, entries;
    u32 local_apic;
    u16 extended;
    u8 extended_checksum, reserved;
};

struct interrupt {
    u8 kind, type;
    u16 flags;
    u8 bus, line, apic, pin;
};

u32 local_apic, io_apic;
static u8 pins[LINES], isa = ANY, version;
static u32 counts[KINDS], processors_ready, strange;

u8 pin_of_line(u8 line) {
    return pins[line];
}

static u8 sum(u32 address, u32 length) {
    u8 total = 0;
    for (u32 i = 0; i < length; i++) total = (u8)(total + *(volatile const u8 *)(address + i));
    return total;
}

/* From memory that the compiler believes to be nobody's. */
static u16 word_at(u32 address) {
    __asm__("" : "+r"(address));
    return *(volatile const u16 *)address;
}

static const struct pointer *search(u32 from, u32 size) {
    for (u32 at = from; at < from + size; at += sizeof(struct pointer)) {
        const struct pointer *found = (const struct pointer *)at;
        if (found->signature == 0x5F504D5F && sum(at, sizeof *found) == 0) return found; /* _MP_ */
    }
    return NULL;
}

static const struct pointer *find(void) {
    u32 extended = (u32)word_at(EXTENDED_DATA) << 4, base = (u32)word_at(BASE_MEMORY) << 10;
    const struct pointer *found = extended ? search(extended, 1024) : NULL;
    if (!found) found = search(base - 1024, 1024);
    return found ? found : search(ROM, ROM_SIZE);
}

static void take_entry(const u8 *entry) {
    const struct interrupt *wired = (const struct interrupt *)entry;
    switch (entry[0]) {
    case PROCESSOR:
        if ((entry[3] & (ENABLED | BOOTSTRAP)) == (ENABLED | BOOTSTRAP)) processors_ready++;
        break;
    case BUS:
        if (entry[2] == 'I' && entry[3] == 'S' && entry[4] == 'A') isa = entry[1];
        break;
    case IO_APIC:
        if (entry[3] & ENABLED) io_apic = *(const u32 *)(entry + 4), version = entry[2];
        break;
    case IO_INTERRUPT:
        if (wired->type == VECTORED && wired->bus == isa && wired->line < LINES)
            pins[wired->line] = wired->pin;
        break;
    }
}

static void read(const struct table *table) {
    const u8 *at = (const u8 *)(table + 1);
    for (u32 i = 0; i < LINES; i++) pins[i] = NO_PIN;
    for (u32 i = 0; i < table->entries; i++) {
        if (at[0] >= KINDS) {
            strange++;
            break;
        }
        counts[at[0]]++;
        take_entry(at);
        at += at[0] == PROCESSOR ? 20 : 8;
    }
    local_apic = table->local_apic;
    check("tables: as long as they say", (u32)at - (u32)table, table->length);
}

void check_tables(void) {
    const struct pointer *pointer = find();
    const struct table *table;
    check("tables: there is a pointer that adds up", pointer != NULL, true);
    if (!pointer) end(1);
    check("tables: of one paragraph", pointer->paragraphs, 1);
    table = (const struct table *)pointer->table;
    check("tables: signature", table->signature, 0x504D4350); /* PCMP */
    check("tables: they add up", sum((u32)table, table->length), 0);
    read(table);
    check("tables: entries are known", strange, 0);
    check("tables: one processor to start", processors_ready, 1);
    check("tables: one I/O APIC", counts[IO_APIC], 1);
    check("tables: which is where it always is", io_apic, 0xFEC00000);
    check("tables: of a version with 24 pins", version & 0xF0, 0x10);
    check("tables: the local APICs, too", local_apic, 0xFEE00000);
    check("tables: lines to it", counts[IO_INTERRUPT] >= 12, true);
    check("tables: lines to the processor", counts[LOCAL_INTERRUPT], 2);
    check("tables: the timer's pin", pins[TIMER_LINE], 2);
    check("tables: COM1's pin", pins[COM1_LINE], 4);
}
