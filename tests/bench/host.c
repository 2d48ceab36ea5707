/* host.c - a workload as a program of the host: the argument is how many iterations to do. */
#include <stdio.h>
#include <stdlib.h>

#include "workloads/workload.h"

int main(int count, char **arguments) {
    uint32_t iterations = count > 1 ? (uint32_t)strtoul(arguments[1], 0, 10) : 1;
    printf("checksum=%08x\n", workload(iterations));
    return 0;
}
