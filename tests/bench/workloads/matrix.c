/* matrix.c - integer matrix multiply, 48 by 48: multiplies, and addresses with an index. */
#include "workload.h"

enum { SIZE = 48 };

static uint32_t left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];

static void multiply(void) {
    for (int row = 0; row < SIZE; row++)
        for (int column = 0; column < SIZE; column++) {
            uint32_t sum = 0;
            for (int k = 0; k < SIZE; k++) sum += left[row][k] * right[k][column];
            product[row][column] = sum;
        }
}

uint32_t workload(uint32_t iterations) {
    uint32_t seed = 17, sum = 0;
    for (int row = 0; row < SIZE; row++)
        for (int column = 0; column < SIZE; column++) {
            left[row][column] = next_random(&seed);
            right[row][column] = next_random(&seed);
        }
    while (iterations--) {
        multiply();
        for (int i = 0; i < SIZE; i++) {
            sum = fold(sum, product[i][SIZE - 1 - i]);
            left[i][i] += sum;
        }
    }
    return sum;
}
