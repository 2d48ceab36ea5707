/* machine.c - a serial port to print on, a port to stop at, a command line, and paging. */
#include "machine.h"

enum { COM1 = 0x3F8, LINE_STATUS = 5, TRANSMIT_EMPTY = 0x20, DEBUG_EXIT = 0xF4 };

static uint32_t directory[1024] __attribute__((aligned(4096)));
static uint32_t tables[MAPPED_TABLES][1024] __attribute__((aligned(4096)));

static void out(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

_Noreturn void machine_exit(uint32_t status) {
    out(DEBUG_EXIT, (uint8_t)status);
    for (;;) __asm__ volatile("cli; hlt");
}

void print(const char *text) {
    for (; *text; text++) {
        while (!(in(COM1 + LINE_STATUS) & TRANSMIT_EMPTY))
            ;
        out(COM1, (uint8_t)*text);
    }
}

void print_number(const char *name, uint32_t value) {
    char digits[9];
    for (int i = 7; i >= 0; i--, value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
    digits[8] = 0;
    print(name);
    print("=");
    print(digits);
    print("\n");
}

const char *option(const struct multiboot *information, const char *name) {
    const char *at = information->flags & 4 ? information->command_line : "";
    for (; *at; at++) {
        const char *a = at, *b = name;
        while (*b && *a == *b) {
            a++;
            b++;
        }
        if (!*b && *a == '=') return a + 1;
    }
    return 0;
}

uint32_t number(const char *text) {
    uint32_t value = 0;
    while (text && *text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
    return value;
}

uint32_t *page_entry(uint32_t linear) {
    return &tables[linear >> 22][linear >> 12 & 1023];
}

void load_cr3(void) {
    __asm__ volatile("mov %0, %%cr3" : : "r"(directory) : "memory");
}

void enable_paging(void) {
    for (uint32_t i = 0; i < MAPPED_TABLES; i++) {
        directory[i] = (uint32_t)tables[i] | PAGE_PRESENT | PAGE_WRITE | PAGE_USER;
        for (uint32_t j = 0; j < 1024; j++)
            tables[i][j] = (i << 22) | (j << 12) | PAGE_PRESENT | PAGE_WRITE | PAGE_USER;
    }
    load_cr3();
    __asm__ volatile("mov %%cr0, %%eax\n\t"
                     "or $0x80000000, %%eax\n\t"
                     "mov %%eax, %%cr0"
                     :
                     :
                     : "eax", "memory");
}
