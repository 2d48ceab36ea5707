/* main.c - the parts in their order, and COM1 to print on. Next: boot.c. */
#include "kernel.h"

enum { LINE_STATUS = 5, TRANSMIT_EMPTY = 0x20, DEBUG_EXIT = 0xF4, MOST = 63 };

bool timed;
static u32 failures;

_Noreturn void end(u32 status) {
    out8(DEBUG_EXIT, (u8)status);
    for (;;) __asm__ volatile("cli; hlt");
}

void print(const char *text) {
    for (; *text; text++) {
        while (!(in8(COM1 + LINE_STATUS) & TRANSMIT_EMPTY))
            ;
        out8(COM1, (u8)*text);
    }
}

static void print_number(u32 value) {
    char digits[11] = "0x00000000";
    for (int i = 9; i > 1; i--, value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
    print(digits);
}

void check(const char *name, u32 found, u32 expected) {
    if (found == expected) {
        print("ok ");
        print(name);
    } else {
        failures++;
        print("FAILED ");
        print(name);
        print(": found ");
        print_number(found);
        print(", expected ");
        print_number(expected);
    }
    print("\n");
}

u32 main(u32 magic, const struct multiboot *information);

u32 main(u32 magic, const struct multiboot *information) {
    check_boot(magic, information);
    install_interrupts();
    mask_8259s(0xFFFF); /* firmware may have used them until now */
    check_cpu();
    check_tables();
    check_paging();
    check_local_apic();
    check_priorities();
    check_timer();
    check_lines();
    check_levels();
    check_disk();
    return failures < MOST ? failures : MOST;
}
