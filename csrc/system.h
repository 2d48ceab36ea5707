/*
 * system.h - bodies of the instructions that touch more than general registers and memory.
 *
 * Each is called by generated code (isa_cold.h) for the rows that name it in their `body` column,
 * after the row's CPL or IOPL check; rows with "io" or "tsd" privilege check for themselves.
 * op_segment.c has those of selectors and descriptor tables, system.c those of control and flags,
 * io.c those of ports.
 */
#ifndef SEVENTEEN_SYSTEM_H
#define SEVENTEEN_SYSTEM_H

#include "cpu.h"

#define SYSTEM_BODY(name) void op_##name(Cpu *cpu, const Insn *in, Shape s)

/* -- op_segment.c: selectors, descriptor tables, far transfers --------------------------------- */
SYSTEM_BODY(mov_from_sreg);
SYSTEM_BODY(mov_to_sreg);
SYSTEM_BODY(push_sreg);
SYSTEM_BODY(pop_sreg);
SYSTEM_BODY(lds);
SYSTEM_BODY(les);
SYSTEM_BODY(lss);
SYSTEM_BODY(lfs);
SYSTEM_BODY(lgs);
SYSTEM_BODY(sgdt);
SYSTEM_BODY(sidt);
SYSTEM_BODY(lgdt);
SYSTEM_BODY(lidt);
SYSTEM_BODY(sldt);
SYSTEM_BODY(str);
SYSTEM_BODY(lldt);
SYSTEM_BODY(ltr);
SYSTEM_BODY(lar);
SYSTEM_BODY(lsl);
SYSTEM_BODY(verr);
SYSTEM_BODY(verw);
SYSTEM_BODY(jmp_far);
SYSTEM_BODY(jmp_far_mem);
SYSTEM_BODY(call_far);
SYSTEM_BODY(call_far_mem);
SYSTEM_BODY(retf);
SYSTEM_BODY(retf_imm);
SYSTEM_BODY(iret);

/* -- system.c: flags, control and debug registers, interrupts, identification ------------------ */
SYSTEM_BODY(lahf);
SYSTEM_BODY(sahf);
SYSTEM_BODY(cld);
SYSTEM_BODY(std);
SYSTEM_BODY(clc);
SYSTEM_BODY(stc);
SYSTEM_BODY(cmc);
SYSTEM_BODY(cli);
SYSTEM_BODY(sti);
SYSTEM_BODY(pushf);
SYSTEM_BODY(popf);
SYSTEM_BODY(mov_from_cr);
SYSTEM_BODY(mov_to_cr);
SYSTEM_BODY(mov_from_dr);
SYSTEM_BODY(mov_to_dr);
SYSTEM_BODY(smsw);
SYSTEM_BODY(lmsw);
SYSTEM_BODY(clts);
SYSTEM_BODY(invlpg);
SYSTEM_BODY(wbinvd);
SYSTEM_BODY(hlt);
SYSTEM_BODY(wait);
SYSTEM_BODY(int3);
SYSTEM_BODY(int);
SYSTEM_BODY(into);
SYSTEM_BODY(bound);
SYSTEM_BODY(ud2);
SYSTEM_BODY(cpuid);
SYSTEM_BODY(rdtsc);
SYSTEM_BODY(rdmsr);
SYSTEM_BODY(wrmsr);

/* -- io.c -------------------------------------------------------------------------------------- */
SYSTEM_BODY(in_imm);
SYSTEM_BODY(in_dx);
SYSTEM_BODY(out_imm);
SYSTEM_BODY(out_dx);
SYSTEM_BODY(ins);
SYSTEM_BODY(outs);

/* What cpu_complete puts in the replay queue for the port exit in cpu->exit: `value` for one
   element, the number of elements written for many. */
u64 io_answer(const Cpu *cpu, u64 value);
/* cpu_complete_bytes: the data of a bulk INS goes to memory, the count of elements to the queue. */
void io_complete_bytes(Cpu *cpu, const u8 *data, u32 size);

#endif
