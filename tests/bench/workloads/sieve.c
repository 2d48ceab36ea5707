/* sieve.c - the sieve of Eratosthenes over bytes: short strided loops, stores, well-predicted jumps. */
#include "workload.h"

enum { LIMIT = 65536 };

static uint8_t composite[LIMIT];

static uint32_t count_primes(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < LIMIT; i++) composite[i] = 0;
    for (uint32_t i = 2; i < LIMIT; i++) {
        if (composite[i]) continue;
        count++;
        for (uint32_t multiple = i * 2; multiple < LIMIT; multiple += i) composite[multiple] = 1;
    }
    return count;
}

uint32_t workload(uint32_t iterations) {
    uint32_t sum = 0;
    while (iterations--) sum = fold(sum, count_primes());
    return sum;
}
