/* quicksort.c - recursive quicksort of 4096 words: calls, returns, jumps that nobody can predict. */
#include "workload.h"

enum { LENGTH = 4096 };

static uint32_t numbers[LENGTH];

static void sort(uint32_t *first, uint32_t *last) {
    while (first < last) {
        uint32_t *low = first, *high = last, pivot = first[(last - first) / 2];
        while (low <= high) {
            while (*low < pivot) low++;
            while (*high > pivot) high--;
            if (low <= high) {
                uint32_t swapped = *low;
                *low++ = *high;
                *high-- = swapped;
            }
        }
        sort(first, high);
        first = low;
    }
}

uint32_t workload(uint32_t iterations) {
    uint32_t seed = 17, sum = 0;
    while (iterations--) {
        for (int i = 0; i < LENGTH; i++) numbers[i] = next_random(&seed);
        sort(numbers, numbers + LENGTH - 1);
        for (int i = 1; i < LENGTH; i++) sum += numbers[i - 1] > numbers[i]; /* stays 0 if sorted */
        sum = fold(sum, numbers[LENGTH / 2]);
    }
    return sum;
}
