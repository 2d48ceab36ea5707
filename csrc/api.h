/*
 * api.h - everything Python sees of the C core, and the one source for it.
 *
 * The build hands this file, less its preprocessor lines, to cffi; C files include it. So it holds
 * plain declarations only: enums, the pointer-free CPU state, the exit record, the entry points.
 * The core never calls Python: cpu_run runs until something needs its caller, fills the exit record
 * and returns its reason. Two parts have files of their own, which the build hands over as well:
 * apic_api.h and guest_api.h. Read cpu.h next for what lies behind these types.
 *
 * Address spaces: "linear" is what segmentation yields, "machine" is the physical address of the
 * machine. Sizes are in bytes, ticks are guest time (instructions retired), cycles machine time.
 */
#ifndef SEVENTEEN_API_H
#define SEVENTEEN_API_H
#include "apic_api.h"

/* Why cpu_run returned. */
enum exit_reason {
    EXIT_DEADLINE = 1, /* state.tick reached the limit that cpu_run was given */
    EXIT_HALT,         /* HLT retired: nothing to do before the next interrupt */
    EXIT_PORT_READ,    /* IN, INS: answer with cpu_complete, or cpu_complete_bytes if count > 1 */
    EXIT_PORT_WRITE,   /* OUT, OUTS: value (count 1) or data (count elements), then cpu_complete */
    EXIT_MMIO_READ,    /* a load from a device page: answer with cpu_complete */
    EXIT_MMIO_WRITE,   /* stores to device pages, in posted[]; the instruction has retired */
    EXIT_INTERRUPT,    /* the interrupt line is up and the CPU can take it: cpu_interrupt */
    EXIT_EVENT,        /* an event whose vector is intercepted; nothing has been delivered */
    EXIT_INTERCEPT,    /* an intercepted row, CR or port is about to execute */
    EXIT_BREAKPOINT,   /* state.eip is at a breakpoint set by cpu_set_breakpoint */
    EXIT_WATCH,        /* stores hit watched pages, in watched[]; the instruction has retired */
    EXIT_TRACE,        /* the trace ring is full: drain it and run on */
    EXIT_SHUTDOWN,     /* triple fault: faults[] holds the chain */
    EXIT_UNSUPPORTED,  /* outside the slice, named by detail (enum unsupported) */
    EXIT_REQUEST,      /* cpu_request_exit was called */
    EXIT_NESTED,       /* guest mode: the host's tables do not have a guest-physical address, or not
                          for this; exit.address, .linear, .error (enum access), .detail: a walk's */
    EXIT_WATCHPOINT    /* an access met one of cpu_set_watchpoint: exit.hit_linear, .hit_access; the
                          instruction has retired, or the event whose delivery it was */
};

/* What EXIT_UNSUPPORTED met. */
enum unsupported {
    UNSUPPORTED_TASK_GATE = 1, /* an event or far transfer through a task gate */
    UNSUPPORTED_TASK_SWITCH,   /* a far transfer to a TSS */
    UNSUPPORTED_NESTED_TASK,   /* IRET with EFLAGS.NT = 1 */
    UNSUPPORTED_V86,           /* IRET to EFLAGS.VM = 1 */
    UNSUPPORTED_CODE16,        /* a 16-bit code segment or gate */
    UNSUPPORTED_REAL_MODE,     /* CR0.PE cleared */
    UNSUPPORTED_FAULT_LOOP     /* handlers fault at their first instruction, without an end */
};

/* Flags of a machine page, honoured by every store, whoever makes it. */
enum page_flag {
    PAGE_CODE = 1,      /* decoded blocks come from it (the core's own) */
    PAGE_WATCHED = 2,   /* a store exits with EXIT_WATCH after it is done */
    PAGE_DIRTY_LOG = 4, /* the first store is logged in machine_dirty */
    PAGE_ROM = 8,       /* stores are dropped */
    PAGE_MMIO = 16,     /* no memory: loads and stores exit */
    PAGE_WEIGHTED = 32  /* machine_set_weights; what is stored to loses its weight */
};

/* Accesses that a watchpoint is for, and that met it. */
enum watch_access { WATCH_READ = 1, WATCH_WRITE = 2 };

/* What the trace ring records; bits of state.trace. */
enum trace_kind { TRACE_BLOCK = 1, TRACE_EXEC = 2, TRACE_EVENT = 4 };

/* What an access is, for the walk of the page tables. */
enum access { ACCESS_READ = 0, ACCESS_WRITE = 2, ACCESS_USER = 4, ACCESS_FETCH = 16 };

/* How an event came about (SDM vol. 3, 6.3 and 6.4). */
enum event_kind { EVENT_EXCEPTION, EVENT_SOFTWARE, EVENT_EXTERNAL };

enum segment_register { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };
enum general_register { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, GPR_COUNT };

/* Segment.attributes: bits 8-23 of a descriptor's high doubleword at 0-15, then our own bit. */
enum segment_attribute {
    ATTR_ACCESSED = 1,
    ATTR_WRITABLE = 2,
    ATTR_EXPAND_DOWN = 4,
    ATTR_CODE = 8,
    ATTR_TYPE = 15,
    ATTR_READABLE = 2,
    ATTR_CONFORMING = 4,
    ATTR_CODE_OR_DATA = 16,
    ATTR_DPL = 96,
    ATTR_PRESENT = 128,
    ATTR_BIG = 16384,
    ATTR_GRANULARITY = 32768,
    ATTR_UNUSABLE = 65536 /* loaded with a null selector: any use is #GP (SS: #SS) */
};

/* A segment register with the descriptor as it was loaded. limit is in bytes, scaled. */
typedef struct {
    uint32_t selector, attributes, base, limit;
} Segment;

typedef struct {
    uint32_t base, limit;
} TableRegister;

/* Vectors, rows, ports and control registers whose use leaves cpu_run; all clear natively. */
typedef struct {
    uint8_t vectors[32];          /* bit v: deliver vector v as EXIT_EVENT */
    uint8_t rows[64];             /* bit r: EXIT_INTERCEPT before row r of the table */
    uint8_t gp_rows[64];          /* bit r: row r raises #GP(0) at CPL > 0 (virtualizable) */
    uint32_t cr_reads, cr_writes; /* bit n: EXIT_INTERCEPT before a MOV from/to CRn */
} Intercepts;

enum {
    STATE_VERSION = 2,
    REPLAY_MAX = 48,
    POSTED_MAX = 48,
    WATCHED_MAX = 16,
    TLB_SIZE = 512,
    TLB_SPACES = 2
};

/* What a processor's TLB would hold: tags are the linear page and the address-space id in the low 11
   bits; a tag of all ones matches nothing. machine is the machine address of the page. writable: a
   store needs no walk either, the page being writable at this privilege and dirty already. */
typedef struct {
    uint32_t tag, machine, writable;
} Translation;
typedef struct {
    uint32_t tag, machine;
} CodeTlbEntry;

/* CPUID leaf 1, as on a CPU whose local APIC is switched on; all optional features that it has. */
enum {
    CPU_SIGNATURE = 0x517, /* family 5, model 1, stepping 7 */
    FEATURE_DE = 1 << 2,
    FEATURE_PSE = 1 << 3,
    FEATURE_TSC = 1 << 4,
    FEATURE_MSR = 1 << 5,
    FEATURE_CX8 = 1 << 8,
    FEATURE_APIC = 1 << 9,
    FEATURE_CMOV = 1 << 15,
    CPU_FEATURES = 0x833C
};

/* The whole architectural state of a CPU: plain data. Between calls of cpu_run it is exact, and
   Python may read and write any of it. */
typedef struct {
    uint32_t version, size;
    uint32_t gpr[9]; /* SDM order; [8] is always zero and stands for "no register" */
    uint32_t eip, eflags;
    uint32_t cpl;
    Segment seg[6];
    Segment ldtr, tr;
    TableRegister gdtr, idtr;
    uint32_t cr0, cr2, cr3, cr4;
    uint32_t dr[8];
    uint64_t tick, cycle;
    uint64_t retired_cpl0;              /* of those ticks, how many at CPL 0 */
    uint32_t interrupt_line;            /* non-zero: an external interrupt waits; bits: apic.c */
    uint32_t interrupt_shadow;          /* STI, POP SS or MOV SS retired just before */
    uint32_t debug_shadow;              /* POP SS or MOV SS: debug traps wait too */
    uint32_t replay_count, replay_next; /* answers to reads of the instruction in progress */
    uint64_t replay[48];
    uint32_t debug_hits; /* DR6 bits of data breakpoints met; they wait behind POP SS or MOV SS */
    uint32_t space;      /* address-space id of TLB tags (11 bits) */
    Intercepts intercepts;
    uint32_t trace;       /* bits of trace_kind */
    uint32_t large_pages; /* a 4 MiB page has been cached since the TLB was flushed */
    uint64_t tsc_offset;  /* what WRMSR to the TSC added to the tick */
    uint64_t timer_due;   /* tick at which the local APIC's timer interrupts; ~0: never */
    Apic apic;
} CpuState;

typedef struct {
    uint32_t vector, error, has_error, eip;
} Fault;

typedef struct {
    uint32_t address; /* machine */
    uint32_t size;
    uint32_t value;
    uint32_t pad;
} PostedWrite;

/* The one exit record of a CPU; its first 64 bytes are what an exit handler unpacks at once. */
typedef struct {
    uint32_t reason;
    uint32_t row;    /* of the instruction, where there is one */
    uint32_t length; /* of the instruction, bytes */
    uint32_t eip;    /* of the instruction */
    uint32_t port;
    uint32_t size;  /* of one element: 1, 2 or 4 */
    uint32_t count; /* elements (string I/O), or posted writes */
    uint32_t linear;
    uint32_t address; /* machine */
    uint32_t value;
    uint32_t vector, error, has_error, kind;
    uint32_t detail;
    uint32_t operand; /* CR number, or the general register's */
    uint32_t fault_count;
    uint32_t watched_count;
    /* EXIT_WATCHPOINT: the first byte watched, enum watch_access, EIP of the instruction. */
    uint32_t hit_linear, hit_access, hit_eip;
    Fault faults[3];
    uint32_t watched[16]; /* machine pages */
    PostedWrite posted[48];
    uint8_t data[4096];
} ExitRecord;

/* One record of the trace ring. TRACE_BLOCK and TRACE_EXEC: eip, machine address, bytes and
   instructions of the block. TRACE_EVENT: the event as delivered, with ESP and SS as they were before;
   address is CR3. */
typedef struct {
    uint64_t tick;
    uint32_t kind, eip, address, length, count;
    uint32_t vector, error, cr2, esp, event_kind, cs, eflags, has_error, ss;
} TraceRecord;

/* What a walk of the page tables found. */
typedef struct {
    uint32_t error;                        /* of the page fault that the access raises */
    uint32_t physical, machine;            /* of the byte */
    uint32_t writable, user, dirty, large; /* 0 or 1: what the entries say, whatever CR0.WP */
    uint32_t directory_entry, table_entry; /* as they are after the walk; 0: none */
} Walked;

/* Counters of the core, for people and tests. */
typedef struct {
    uint64_t blocks_decoded, blocks_dropped, cache_flushes, chains_made, tlb_misses, lookups,
        events, invalidating_stores;
} CoreStats;

typedef struct Machine Machine;

/* A machine of `size` bytes of memory at `memory` (kept by the caller, page aligned); NULL if out
   of memory. Machine addresses from 0 map to it; the rest is empty: reads all ones, drops writes. */
Machine *machine_new(uint8_t *memory, uint64_t size);
/* Free it; or, while it has CPUs, with the last of them. */
void machine_free(Machine *machine);
/* Map a machine page to `offset` in memory, or to none if `offset` is ~0. */
void machine_map(Machine *machine, uint32_t page, uint64_t offset);
void machine_set_flags(Machine *machine, uint32_t page, uint32_t count, uint8_t set, uint8_t clear);
uint8_t machine_flags(const Machine *machine, uint32_t page);
/* Host (device, loader, hypervisor) access to machine memory; honours page flags. Returns the
   number of bytes done: less than `size` where a page is no memory. */
uint32_t machine_read(Machine *machine, uint32_t address, uint8_t *to, uint32_t size);
uint32_t machine_write(Machine *machine, uint32_t address, const uint8_t *from, uint32_t size);
/* Pages first stored to since they were flagged PAGE_DIRTY_LOG: one byte a page. */
const uint8_t *machine_dirty(const Machine *machine);
CoreStats *machine_stats(Machine *machine);
/* Give instructions of a machine page no weight: no tick of guest time. Bit i % 8 of bits[i / 8],
   of 4096 bits in all, is that of an instruction whose first byte is byte i of the page. The bits
   are copied; NULL takes them away. A store to a byte takes its bit away, or a guest could make
   itself a loop that no tick ends; no snapshot has them. Returns 0; -1 if out of memory or if the page is beyond the memory's size. */
int machine_set_weights(Machine *machine, uint32_t page, const uint8_t *bits);
/* Forget every decoded block. */
void machine_flush_blocks(Machine *machine);
/* Charge so many cycles for each row of the instruction table, and for each event of the cost model,
   in the order of isa/cost.py; a new machine charges the default preset's. Forgets every decoded
   block, for a block knows what it costs. Returns 0; -1 if there are not as many as there are rows
   and events. */
int machine_set_costs(Machine *machine, const uint32_t *rows, uint32_t row_count,
                      const uint32_t *events, uint32_t event_count);

Cpu *cpu_new(Machine *machine);
void cpu_free(Cpu *cpu);
CpuState *cpu_state(Cpu *cpu);
ExitRecord *cpu_exit(Cpu *cpu);
/* What CPUID calls the processor's maker, in place of "SeventeenCPU": 12 characters. */
void cpu_set_vendor(Cpu *cpu, const uint8_t *name);
/* Put the CPU in the multiboot entry state: protected mode, flat ring-0 segments, paging and
   interrupts off, all else as after reset. */
void cpu_reset(Cpu *cpu);
/* Run until state.tick == until_tick, or an earlier exit. Returns enum exit_reason. Instructions
   without weight are not run once that tick is reached, nor do they reach it. */
int cpu_run(Cpu *cpu, uint64_t until_tick);
/* Execute one instruction, or one iteration of a repeat, and stop: EXIT_DEADLINE when it has retired
   or the fault that it raised has been delivered, else the exit that it waits for. If `code` is not
   NULL the instruction is those `size` bytes, which for this once stand at state.eip and are
   `length` bytes long. */
int cpu_step(Cpu *cpu, const uint8_t *code, uint32_t size, uint32_t length);
/* After a step at `eip`: more of them, before tick `until`, while the CPU is in ring 0 and within a
   repeat, or on a stack at linear address `floor` or above. Returns as cpu_step does. */
int cpu_step_on(Cpu *cpu, uint32_t eip, uint32_t floor, uint64_t until);
/* Answer the port or MMIO exit; the instruction goes on in the next cpu_run. */
void cpu_complete(Cpu *cpu, uint64_t value);
/* Answer an EXIT_PORT_READ of count > 1 with count * size bytes. */
void cpu_complete_bytes(Cpu *cpu, const uint8_t *data, uint32_t size);
/* Deliver an event now, as if it had arisen at state.eip. Returns 0, or an exit reason
   (EXIT_SHUTDOWN, EXIT_UNSUPPORTED, EXIT_EVENT) to handle. has_error: push `error`. */
int cpu_inject(Cpu *cpu, uint32_t vector, uint32_t kind, uint32_t has_error, uint32_t error);
/* Deliver an external interrupt (EXIT_INTERRUPT, or wake from EXIT_HALT). */
int cpu_interrupt(Cpu *cpu, uint32_t vector);
/* May be called from another thread or a signal handler: cpu_run returns EXIT_REQUEST soon. */
void cpu_request_exit(Cpu *cpu);
/* Take that back, and a watchpoint's exit that has not been made yet. */
void cpu_forget_request(Cpu *cpu);
/* While on, each event that is delivered requests an exit of all CPUs: a debugger's single step ends
   with the instruction, by its tick, or where its fault has led. */
void machine_stop_at_events(Machine *machine, int on);
/* Forget cached translations: all of them, or those of one linear page. */
void cpu_flush_tlb(Cpu *cpu);
void cpu_invalidate_page(Cpu *cpu, uint32_t linear);
/* Access guest memory by linear address with the rights of `cpl`, through the paging structures
   and without side effects beyond accessed and dirty bits. Returns the number of bytes done. */
uint32_t cpu_read_linear(Cpu *cpu, uint32_t linear, uint8_t *to, uint32_t size, uint32_t cpl);
uint32_t cpu_write_linear(Cpu *cpu, uint32_t linear, const uint8_t *from, uint32_t size,
                          uint32_t cpl);
/* Translate without any side effect. Returns the machine address, or ~0 where not mapped. */
uint64_t cpu_translate(Cpu *cpu, uint32_t linear);
/* The same of `count` addresses at once: machine pages, or ~0. */
void cpu_translate_pages(Cpu *cpu, const uint32_t *linear, uint32_t count, uint32_t *pages);
/* Walk the page tables for an access (bits of enum access) at a linear address, and set accessed and
   dirty bits as it would. Returns 1; or 0, with only `error` filled, if it faults. */
int cpu_walk(Cpu *cpu, uint32_t linear, uint32_t access, Walked *to);
/* Make the CPU's physical addresses those of a virtual machine: physical page p is machine page
   frames[p], and there is no memory from page `count` on, nor where frames[p] is 0xFFFFF. The
   caller keeps `frames`, and flushes the TLB after a change. NULL: physical is machine. */
void cpu_set_frames(Cpu *cpu, const uint32_t *frames, uint32_t count);
/* Whether stores of this CPU to watched pages are reported, as they are at first. A hypervisor's real
   CPU need not: the shadow tables keep the guest from those pages. */
void cpu_set_watching(Cpu *cpu, int watching);
/* Retire an instruction that was done for the CPU: a tick, on to `eip`, and no shadow left. */
void cpu_retire(Cpu *cpu, uint32_t eip);
/* Carry a guest from one CPU to another: general registers, EIP, tick, TSC offset, debug registers,
   the shadows of STI and MOV SS, the local APIC if both have one, and EFLAGS but for the bits of
   `kept`, which stay as they are. */
void cpu_hand_over(Cpu *to, const Cpu *from, uint32_t kept);
/* Breakpoints by linear address of an instruction. One is met when the instruction begins: once for
   a repeat, and not again at the tick at which it has been reported. Returns 0, or -1 if out of
   memory. */
int cpu_set_breakpoint(Cpu *cpu, uint32_t linear);
void cpu_clear_breakpoint(Cpu *cpu, uint32_t linear);
/* Has the CPU reported the breakpoint at an EIP at this tick, or was it within a repeat there? */
int cpu_is_past_breakpoint(const Cpu *cpu, uint32_t eip, uint64_t tick);
/* Watchpoints: accesses (enum watch_access) to any of `size` bytes at a linear address end in
   EXIT_WATCHPOINT. Those of the processor itself to descriptors and stacks are among them, but not
   its page walks, nor what devices do. The guest's debug registers know nothing of it. What is done
   by instructions without weight is reported after the next with weight. Returns 0, or -1 if there
   are too many. */
int cpu_set_watchpoint(Cpu *cpu, uint32_t linear, uint32_t size, uint32_t access);
void cpu_clear_watchpoints(Cpu *cpu);
/* An exit for a watchpoint that is due but has not been made: enum watch_access, with hit_linear in the
   exit record; or 0. It will not be made any more. */
uint32_t cpu_take_hit(Cpu *cpu);
/* The whole CPU, TLB included, as bytes: cpu_save returns how many it writes (to may be NULL to
   ask), cpu_load returns 0, or -1 if the bytes are of another version. */
uint32_t cpu_save(Cpu *cpu, uint8_t *to);
int cpu_load(Cpu *cpu, const uint8_t *from, uint32_t size);
/* Take up to `count` trace records, oldest first; returns how many. */
uint32_t cpu_take_trace(Cpu *cpu, TraceRecord *to, uint32_t count);

/* The fingerprint of the instruction table that this core was built from. */
const char *core_fingerprint(void);
/* Name of a row's op bodies: for the C decoder's tests. Decode one instruction at `code`: returns
   its row id, or -1 - vector when it raises #UD (6) or #GP (13). */
int core_decode(const uint8_t *code, uint32_t size, uint32_t *length);

#endif
