/* machine.h - what the bench kernels need of a bare PC; machine.c has the how. */
#ifndef MACHINE_H
#define MACHINE_H
#include <stdint.h>

/* The part of the multiboot-1 information block that is read here. */
struct multiboot {
    uint32_t flags, mem_lower, mem_upper, boot_device;
    const char *command_line; /* valid if flags bit 2 is set */
};

/* Page-table bits (SDM vol. 3, 4.3). */
enum { PAGE_PRESENT = 1, PAGE_WRITE = 2, PAGE_USER = 4, MAPPED_TABLES = 4 };

int main(const struct multiboot *information);
_Noreturn void machine_exit(uint32_t status);

void print(const char *text);
void print_number(const char *name, uint32_t value);

/* Where the value of NAME=VALUE starts in the command line, or 0 if NAME is not there. */
const char *option(const struct multiboot *information, const char *name);
uint32_t number(const char *text);

/* Map the first MAPPED_TABLES * 4 MiB one to one, for all rings, and turn paging on. */
void enable_paging(void);
uint32_t *page_entry(uint32_t linear);
void load_cr3(void);

#endif
