/*
 * cold.h - instructions that are rare or large enough to be called: cold.c instantiates them, the
 * bodies stand in ops_*.h, system.c and io.c.
 */
#ifndef SEVENTEEN_COLD_H
#define SEVENTEEN_COLD_H

#include "cpu.h"

/* By op id, less OP_FIRST_COLD. */
extern void (*const cold_ops[])(Cpu *, const Insn *);

#endif
