/*
 * boot.c - what a multiboot loader says: how much memory there is, and where.
 *
 * Source: Multiboot Specification 0.6.96, 3.3. Next: cpu.c.
 */
#include "kernel.h"

enum { LOADED = 0x2BADB002, HAS_MEMORY = 1, HAS_COMMAND_LINE = 4, HAS_MAP = 64, USABLE = 1 };
enum { MEBIBYTE = 1 << 20, LEAST = 14 * MEBIBYTE, VIDEO = 0xA0000 };

struct multiboot {
    u32 flags, mem_lower, mem_upper, boot_device;
    const char *command_line;
    u32 mods_count, mods_addr, syms[4], map_length, map_address;
};

struct area {
    u32 size; /* of what follows */
    u64 base, length;
    u32 kind;
} __attribute__((packed));

static bool has_word(const char *text, const char *word) {
    for (; *text; text++) {
        const char *a = text, *b = word;
        while (*b && *a == *b) a++, b++;
        if (!*b) return true;
    }
    return false;
}

static void check_map(u32 first, u32 length) {
    u32 low = 0, high = 0, in_hole = 0, overlaps = 0;
    for (u32 at = first; at < first + length;) {
        const struct area *area = (const struct area *)at;
        u64 stop = area->base + area->length;
        if (area->kind == USABLE) {
            if (area->base == 0 && stop > 0x90000 && stop <= VIDEO) low++;
            if (area->base == MEBIBYTE && area->length >= LEAST) high++;
            if (area->base < MEBIBYTE && stop > VIDEO) in_hole++;
        }
        at += area->size + 4;
        for (u32 other = at; other < first + length;) {
            const struct area *next = (const struct area *)other;
            if (next->base < stop && area->base < next->base + next->length) overlaps++;
            other += next->size + 4;
        }
    }
    check("map: conventional memory from 0", low, 1);
    check("map: the rest from 1 MiB", high, 1);
    check("map: no memory in the hole", in_hole, 0);
    check("map: areas are apart", overlaps, 0);
}

void check_boot(u32 magic, const struct multiboot *information) {
    u32 wanted = HAS_MEMORY | HAS_COMMAND_LINE | HAS_MAP;
    check("boot: loaded by a multiboot loader", magic, LOADED);
    check("boot: what it tells", information->flags & wanted, wanted);
    timed = has_word(information->command_line, "timed");
    check("boot: conventional memory, KiB", information->mem_lower, 639);
    check("boot: enough above", information->mem_upper >= LEAST / 1024, true);
    check_map(information->map_address, information->map_length);
}
