/*
 * cut.h - where flat segments end, and with them the pages that are reached without a limit check;
 * cut.c has the reasons.
 */
#ifndef SEVENTEEN_CUT_H
#define SEVENTEEN_CUT_H

#include "cpu.h"

/* The last byte that DS, ES and SS all reach, if they are flat but for their end; else 0. */
u32 flat_data_end(const CpuState *state);
/* The same of CS. */
u32 flat_code_end(const CpuState *state);
/* Let the pages above `end` of one TLB space be guarded, and no others. */
void cut_data(Cpu *cpu, u32 space, u32 end);
void cut_code(Cpu *cpu, u32 space, u32 end);
/* Let the ends of the current privilege rise to what its segments reach. */
void cut_raise(Cpu *cpu);
/* No page is guarded. */
void cut_none(Cpu *cpu);

#endif
