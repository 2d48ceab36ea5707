/* bytecode.c - a byte-code interpreter running a prime counter: indirect jumps through a table. */
#include "workload.h"

enum opcode {
    PUSH,         /* push the next byte */
    LOAD,         /* push the local named by the next byte */
    STORE,        /* pop into the local named by the next byte */
    ADD,          /* pop two, push their sum */
    REMAINDER,    /* pop b, pop a, push a % b */
    LESS,         /* pop b, pop a, push a < b */
    JUMP,         /* to the next byte */
    JUMP_IF_ZERO, /* pop; to the next byte if it was 0 */
    HALT
};

/* Locals: 0 = candidate, 1 = divisor, 2 = primes found, 3 = limit. */
static const uint8_t program[] = {
    PUSH,         2,    /*  0 candidate = 2 */
    STORE,        0,    /*  2 */
    LOAD,         0,    /*  4 while candidate < limit */
    LOAD,         3,    /*  6 */
    LESS,               /*  8 */
    JUMP_IF_ZERO, 49,   /*  9 */
    PUSH,         2,    /* 11 divisor = 2 */
    STORE,        1,    /* 13 */
    LOAD,         1,    /* 15 while divisor < candidate */
    LOAD,         0,    /* 17 */
    LESS,               /* 19 */
    JUMP_IF_ZERO, 35,   /* 20 */
    LOAD,         0,    /* 22 if candidate % divisor == 0: not a prime */
    LOAD,         1,    /* 24 */
    REMAINDER,          /* 26 */
    JUMP_IF_ZERO, 40,   /* 27 */
    PUSH,         1,    /* 29 divisor += 1 */
    JUMP,         50,   /* 31 */
    HALT,         HALT, /* 33 */
    PUSH,         1,    /* 35 found += 1 */
    JUMP,         57,   /* 37 */
    HALT,               /* 39 */
    PUSH,         1,    /* 40 candidate += 1 */
    LOAD,         0,    /* 42 */
    ADD,                /* 44 */
    STORE,        0,    /* 45 */
    JUMP,         4,    /* 47 */
    HALT,               /* 49 */
    LOAD,         1,    /* 50 */
    ADD,                /* 52 */
    STORE,        1,    /* 53 */
    JUMP,         15,   /* 55 */
    LOAD,         2,    /* 57 */
    ADD,                /* 59 */
    STORE,        2,    /* 60 */
    JUMP,         40,   /* 62 */
};

static uint32_t interpret(uint32_t limit) {
    uint32_t stack[8], locals[4] = {0, 0, 0, limit}, top = 0, b;
    const uint8_t *next = program;
    for (;;) {
        switch ((enum opcode) * next++) {
        case PUSH: stack[top++] = *next++; break;
        case LOAD: stack[top++] = locals[*next++]; break;
        case STORE: locals[*next++] = stack[--top]; break;
        case ADD:
            b = stack[--top];
            stack[top - 1] += b;
            break;
        case REMAINDER:
            b = stack[--top];
            stack[top - 1] %= b;
            break;
        case LESS:
            b = stack[--top];
            stack[top - 1] = stack[top - 1] < b;
            break;
        case JUMP: next = program + *next; break;
        case JUMP_IF_ZERO: next = stack[--top] ? next + 1 : program + *next; break;
        case HALT: return locals[2];
        }
    }
}

uint32_t workload(uint32_t iterations) {
    uint32_t sum = 0;
    while (iterations--) sum = fold(sum, interpret(200 + (sum & 7)));
    return sum;
}
