/*
 * workload.h - what a workload is: one function, no library, no floating point, no start-up.
 *
 * The same source is compiled once as a multiboot kernel (guest/kernel.c calls it) and once as a
 * 32-bit program of the host (host.c calls it), so that every machine runs the same instructions.
 * A workload does `iterations` times the same work and returns a checksum of all of it; a compiler
 * or a machine that gets something wrong, or leaves something out, returns another one.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H
#include <stdint.h>

uint32_t workload(uint32_t iterations);

/* One step of a linear congruential generator (Numerical Recipes' constants): reproducible data. */
static inline uint32_t next_random(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Fold a value into a checksum, order counting. */
static inline uint32_t fold(uint32_t sum, uint32_t value) {
    return ((sum << 5) | (sum >> 27)) + value;
}

#endif
