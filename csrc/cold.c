/*
 * cold.c - the cases that are functions: generated around the bodies, one a body, size and form.
 */
#include "cold.h"
#include "isa_ops.h"
#include "ops_arith.h"
#include "ops_bits.h"
#include "ops_control.h"
#include "ops_data.h"
#include "ops_logic.h"
#include "ops_string.h"
#include "system.h"

/* The privilege columns cpl0 and iopl; io and tsd are the bodies' own. */
INLINE void check_cpl0(Cpu *cpu) {
    if (unlikely(cpu->state.cpl != 0)) raise_error(cpu, VECTOR_GP, 0);
}

INLINE void check_iopl(Cpu *cpu) {
    if (unlikely(cpu->state.cpl > (cpu->state.eflags & FLAG_IOPL) >> 12))
        raise_error(cpu, VECTOR_GP, 0);
}

#include "isa_cold.h"
