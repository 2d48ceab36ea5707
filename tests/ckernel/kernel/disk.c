/*
 * disk.c - an IDE disk by interrupts: who it is, sectors read, sectors written.
 *
 * Byte n of the image is n * 7 + n / 512 (test_ckernel.py). Source: ATA/ATAPI-6. This is the last part.
 */
#include "kernel.h"

enum { BASE = 0x1F0, COUNT = 2, LOW, MIDDLE, HIGH, DRIVE, COMMAND, STATUS = 7, CONTROL = 0x3F6 };
enum {
    BUSY = 0x80,
    REQUEST = 8,
    ERROR = 1,
    LBA = 0xE0,
    IDENTIFY = 0xEC,
    READ = 0x20,
    WRITE = 0x30
};
enum { LINE = 14, VECTOR = 0x6E, SECTOR = 512, SECTORS = 64, FIRST = 3, WRITTEN = 20, SOME = 3 };

static u8 buffer[SOME * SECTOR];
static volatile u32 status;

static void on_drive(struct frame *frame) {
    (void)frame;
    status = in8(BASE + STATUS);
    apic_end();
}

static void command(u8 what, u32 sector, u8 count) {
    on_vector(VECTOR, on_drive);
    while (in8(BASE + STATUS) & BUSY)
        ;
    out8(BASE + DRIVE, (u8)(LBA | sector >> 24));
    out8(BASE + COUNT, count);
    out8(BASE + LOW, (u8)sector);
    out8(BASE + MIDDLE, (u8)(sector >> 8));
    out8(BASE + HIGH, (u8)(sector >> 16));
    out8(BASE + COMMAND, what);
}

static void take_sector(u8 *to) {
    u32 words = SECTOR / 2;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"(BASE) : "memory");
}

static void give_sector(const u8 *from) {
    u32 longs = SECTOR / 4;
    __asm__ volatile("rep outsl" : "+S"(from), "+c"(longs) : "d"(BASE) : "memory");
}

static u8 byte_of_image(u32 n) {
    return (u8)(n * 7 + n / SECTOR);
}

static void read_sectors(u32 first, u8 count) {
    command(READ, first, count);
    for (u32 i = 0; i < count; i++) {
        wait_for(VECTOR, i + 1);
        check("disk: it has a sector", status & (BUSY | REQUEST | ERROR), REQUEST);
        take_sector(buffer + i * SECTOR);
    }
}

static void check_reading(void) {
    u32 wrong = 0;
    read_sectors(FIRST, SOME);
    for (u32 i = 0; i < SOME * SECTOR; i++) wrong += buffer[i] != byte_of_image(FIRST * SECTOR + i);
    check("disk: as they are on it", wrong, 0);
    check("disk: an interrupt each", taken[VECTOR], SOME);
    check("disk: nothing is left", in8(BASE + STATUS) & (BUSY | REQUEST | ERROR), 0);
}

static void check_writing(void) {
    u32 wrong = 0;
    for (u32 i = 0; i < SOME * SECTOR; i++) buffer[i] = byte_of_image(i + 1);
    command(WRITE, WRITTEN, SOME);
    for (u32 i = 0; i < SOME; i++) {
        if (i > 0) wait_for(VECTOR, i);
        while ((in8(CONTROL) & (BUSY | REQUEST)) != REQUEST)
            ;
        give_sector(buffer + i * SECTOR);
    }
    wait_for(VECTOR, SOME);
    check("disk: written", status & (BUSY | REQUEST | ERROR), 0);
    for (u32 i = 0; i < SOME * SECTOR; i++) buffer[i] = 0;
    read_sectors(WRITTEN, SOME);
    for (u32 i = 0; i < SOME * SECTOR; i++) wrong += buffer[i] != byte_of_image(i + 1);
    check("disk: what was written is there", wrong, 0);
}

void check_disk(void) {
    const u16 *words = (const u16 *)buffer;
    route(pin_of_line(LINE), VECTOR);
    out8(CONTROL, 0);
    command(IDENTIFY, 0, 0);
    wait_for(VECTOR, 1);
    check("disk: it says who it is", status & (BUSY | REQUEST | ERROR), REQUEST);
    take_sector(buffer);
    check("disk: no packet device", words[0] >> 15, 0);
    check("disk: takes LBA", words[49] >> 9 & 1, 1);
    check("disk: so many sectors", words[60] | (u32)words[61] << 16, SECTORS);
    check_reading();
    check_writing();
    route(pin_of_line(LINE), MASKED);
}
