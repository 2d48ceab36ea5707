/* division.c - 64-bit arithmetic and division: adc, sbb, shld, mul, div and the compiler's helpers. */
#include "workload.h"

static uint64_t power_modulo(uint64_t base, uint32_t exponent, uint32_t modulus) {
    uint64_t result = 1;
    for (base %= modulus; exponent; exponent >>= 1) {
        if (exponent & 1) result = result * base % modulus;
        base = base * base % modulus;
    }
    return result;
}

static uint32_t greatest_common_divisor(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

uint32_t workload(uint32_t iterations) {
    uint32_t seed = 17, sum = 0;
    uint64_t wide = 0x123456789ABCDEFull;
    while (iterations--)
        for (int i = 0; i < 64; i++) {
            uint32_t a = next_random(&seed), b = next_random(&seed);
            sum = fold(sum, (uint32_t)power_modulo(a, b, 0xFFFFFFFBu));
            sum = fold(sum, greatest_common_divisor(a, b));
            wide = (wide << 7 | wide >> 57) - ((uint64_t)a << (b & 31));
            sum = fold(sum, (uint32_t)(wide / (b | 1)) ^ (uint32_t)((int64_t)wide >> 35));
        }
    return sum;
}
