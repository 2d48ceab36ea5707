/*
 * guest_api.h - guest mode's part of api.h: the control block, and the entry into a guest.
 *
 * Like api.h it is handed to cffi. guest.c says what happens then.
 */
#ifndef SEVENTEEN_GUEST_API_H
#define SEVENTEEN_GUEST_API_H
#include "api.h"

/* An event for the processor to deliver when it enters a guest, or that it was about to deliver when
   it left. valid: there is one. again: it is not delivered at the entry, for the instruction that
   the guest goes on with meets it again. */
typedef struct {
    uint32_t valid, vector, kind, has_error, error; /* kind: enum event_kind, but SOFTWARE */
    uint32_t again;
} InFlight;

/*
 * Guest mode: what VT-x has in its VMCS and SVM in its VMCB. Everything of the guest that is not
 * here is in a CPU of its own, whose CpuState is the guest state area and whose exit record is the
 * exit information.
 */
typedef struct {
    Intercepts intercepts;
    uint8_t ports[8192];            /* bit p: port p exits; else there is nothing on it */
    uint32_t tsc_reads, tsc_writes; /* the MSR bitmap: RDMSR and WRMSR of the one MSR there is */
    uint32_t cr0_mask, cr4_mask;    /* bits the host owns: the guest reads its own, but cannot
                                         change them without EXIT_INTERCEPT, and these act: */
    uint32_t cr0, cr4;              /* their values */
    uint32_t guest_cr0, guest_cr4;  /* what the guest reads of them; from its state, at the entry */
    uint32_t nested;                /* 0: the guest runs on the page tables at `root`, whatever its
                                         CR3; 1: on its own, and its physical addresses through these */
    uint32_t root;                  /* machine address of a page directory */
    uint32_t flush;                 /* forget its translations first; cleared */
    InFlight event;                 /* delivered at the entry; on exit: what was being delivered */
    /* The processor's own: what it keeps of the guest from an exit to the next entry. */
    uint32_t space, large_pages, generation, pending_exit, seen_cr0, seen_cr3, seen_cr4;
    CpuState host; /* loaded at each exit */
} ControlBlock;

/* Enter guest mode and run as cpu_run does; every exit leaves it. `guest` holds the guest's state
   before and after, and the exit record; the tables of both CPUs' machine must be the same. */
int cpu_run_guest(Cpu *cpu, Cpu *guest, ControlBlock *control, uint64_t until_tick);

#endif
