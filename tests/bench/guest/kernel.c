/* kernel.c - a workload as a multiboot kernel: iterations=N, and paging=1 to run it paged. */
#include "../workloads/workload.h"
#include "machine.h"

int main(const struct multiboot *information) {
    if (number(option(information, "paging"))) enable_paging();
    print_number("checksum", workload(number(option(information, "iterations"))));
    return 0;
}
