/*
 * cpu.h - the core's own types: a decoded instruction, a block, a machine, a CPU.
 *
 * What a reader should hold in mind:
 *   - An instruction is decoded once into an Insn: ids and operands, no addresses. A Block is a run
 *     of them, keyed by machine address, EIP and mode word (block.c, chain.h).
 *   - execute.c runs blocks. Instruction bodies (ops_*.h) are plain functions of operand values;
 *     generated code reads and writes the operands around them (operand.h).
 *   - An instruction that cannot complete leaves by longjmp: raise_* for the guest's faults,
 *     leave_* for exits to Python. So a body changes state only after its last access that may
 *     fault; then the instruction can be restarted.
 *   - Memory is reached by linear address through the TLB (tlb.h, memory.c, paging.c).
 *   - Flags are lazy while blocks run (flags.h), exact in CpuState whenever cpu_run is not running.
 */
#ifndef SEVENTEEN_CPU_H
#define SEVENTEEN_CPU_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "guest_api.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define UNUSED __attribute__((unused))

enum { PAGE_SIZE = 4096, PAGE_MASK = 4095 };
#define PAGE_OF(address) ((address) & ~(u32)PAGE_MASK)

/* EFLAGS (SDM vol. 1, 3.4.3). */
enum eflags {
    FLAG_CF = 1,
    FLAG_ONE = 2,
    FLAG_PF = 4,
    FLAG_AF = 16,
    FLAG_ZF = 64,
    FLAG_SF = 128,
    FLAG_TF = 256,
    FLAG_IF = 512,
    FLAG_DF = 1024,
    FLAG_OF = 2048,
    FLAG_IOPL = 0x3000,
    FLAG_NT = 0x4000,
    FLAG_RF = 0x10000,
    FLAG_VM = 0x20000,
    FLAG_AC = 0x40000,
    FLAG_ID = 0x200000,
    FLAG_ARITHMETIC = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF
};

enum cr0 {
    CR0_PE = 1,
    CR0_MP = 2,
    CR0_EM = 4,
    CR0_TS = 8,
    CR0_ET = 16,
    CR0_NE = 32,
    CR0_WP = 1 << 16,
    CR0_AM = 1 << 18,
    CR0_NW = 1 << 29,
    CR0_CD = 1 << 30
};
#define CR0_PG 0x80000000u
enum cr4 { CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 16 };

/* Bits of page-directory and page-table entries; an address's within a 4 MiB page. */
enum entry {
    ENTRY_PRESENT = 1,
    ENTRY_WRITABLE = 2,
    ENTRY_USER = 4,
    ENTRY_ACCESSED = 32,
    ENTRY_DIRTY = 64,
    ENTRY_LARGE = 128,
    LARGE_MASK = 0x3FFFFF
};

/* Vectors (isa/exceptions.py). */
enum vector {
    VECTOR_DE,
    VECTOR_DB,
    VECTOR_NMI,
    VECTOR_BP,
    VECTOR_OF,
    VECTOR_BR,
    VECTOR_UD,
    VECTOR_NM,
    VECTOR_DF,
    VECTOR_TS = 10,
    VECTOR_NP,
    VECTOR_SS,
    VECTOR_GP,
    VECTOR_PF,
    VECTOR_MF = 16,
    VECTOR_AC
};

/* How a memory operand is reached. The first three are for hot instructions in flat segments. */
enum form { FORM_REG, FORM_BASE, FORM_INDEX, FORM_FIXED, FORM_ANY, FORM_NONE, FORM_COUNT = 5 };

/* What an instance of an instruction body knows at compile time. */
typedef struct {
    u8 bits;    /* operand size: 8, 16 or 32 */
    u8 form;    /* enum form of its ModRM operand */
    bool flags; /* false: every flag it writes is dead */
} Shape;

enum insn_flag {
    INSN_ENDS = 1,       /* ends its block */
    INSN_REP = 2,        /* F3: REP, REPZ */
    INSN_REPNE = 4,      /* F2 */
    INSN_ADDR16 = 8,     /* 67: 16-bit addressing */
    INSN_OPERAND16 = 16, /* 66 */
    INSN_LOCK = 32,
    INSN_WEIGHTLESS = 64 /* it takes no tick */
};

/* A decoded instruction. Registers are byte offsets into CpuState.gpr, made for the host's byte
   order when decoded, so AH and EAX cost the same. NO_REGISTER's slot always holds zero. */
typedef struct {
    u16 op;         /* which case of the executor, or which function of it (generated) */
    u16 row;        /* row of the table */
    u8 length;      /* bytes */
    u8 tick;        /* ticks of the block before this instruction */
    u16 offset;     /* bytes of the block before this instruction */
    u8 rm;          /* register operand: ModRM.rm, opcode low bits, or the accumulator */
    u8 reg;         /* register operand: ModRM.reg; for Sreg, CRn, DRn the bare number */
    u8 base, index; /* of the memory operand */
    u8 scale;       /* shift of the index: 0-3 */
    u8 segment;     /* enum segment_register of the memory operand, overrides applied */
    u8 flags;       /* enum insn_flag */
    u8 cc;          /* condition code, of the opcode's low bits */
    u8 form;        /* enum form of the rm operand */
    u32 displacement;
    u32 immediate;  /* sign-extended where the row says; of jumps: the target's EIP */
    u32 immediate2; /* far selector, ENTER's level; of others: EIP of the next instruction */
} Insn;

struct Block;

/* One way out of a block to a successor known when it was decoded; chain.h. */
typedef struct Link {
    struct Block *target;       /* NULL: not chained */
    struct Link *next_incoming; /* the target's other incoming links */
    u32 eip;                    /* where it leads */
    bool same_page;             /* as its block's first byte: the translation cannot differ */
} Link;

enum { BLOCK_INSNS = 32, MODE_DEAD = 0xFFFFFFFFu };

/* Mode word: all that decoding depends on besides the bytes. */
enum mode {
    MODE_FLAT = 1,    /* DS, ES, SS: base 0, flat to their end (cut.c), writable; SS is 32-bit */
    MODE_LIMITED = 2, /* CS is not flat to its end: no chaining, limit checked on entry */
    MODE_STEP = 4,    /* one instruction a block: TF, debug registers, shadows, exact ticks */
    MODE_CUT = 8      /* CS is flat to an end below 4 GiB; bits 12-31 are those of its limit */
};

typedef struct Block {
    u32 machine; /* machine address of the first byte */
    u32 eip, mode;
    u16 length; /* bytes */
    u8 count;   /* instructions */
    u8 ticks;
    u32 cycles;
    u32 machine2;   /* machine page of the bytes past the first page, or ~0 */
    bool transient; /* not in memory, so not in the cache: executed once */
    struct Block *next_hash;
    struct Block *next_page[2]; /* on the lists of its one or two pages */
    Link out[2];                /* taken or only, not taken */
    Link *incoming;
    Insn insns[]; /* count of them, then one that ends the block if the last does not */
} Block;

/* tag: linear page | guard | address-space id; ~0 matches nothing. host: host address minus linear.
   tlb.h. */
typedef struct {
    u32 read_tag, write_tag;
    uintptr_t host;
} TlbEntry;

enum {
    BLOCK_HASH = 1 << 15,
    ARENA_BYTES = 48 << 20,
    JUMP_CACHE = 4096,
    WATCHPOINTS = 64,
    MOST_ROWS = 512, /* as many as intercepts can name */
    MOST_EVENTS = 32,
    TRACE_RING = 4096
};

struct Machine {
    u8 *memory;
    u64 size;
    u32 pages;           /* pages of memory */
    u64 *page_offset;    /* machine page -> offset in memory plus 1, 0 for none (2^20 entries) */
    u8 *page_flags;      /* enum page_flag, by machine page (2^20 entries) */
    u8 *dirty;           /* by machine page */
    Block **page_blocks; /* blocks with bytes in a machine page */
    u8 **weights;        /* by machine page: 4096 bits, 1 for no tick; or NULL, as in all of them */
    u8 (*code_map)[16];  /* by machine page: which of its 128 granules of 32 bytes hold code */
    Block **hash;
    u8 *arena;
    size_t arena_used;
    Cpu *cpus;     /* all that share this machine */
    bool released; /* machine_free was called; its CPUs keep it */
    /* The cost model: cycles of instructions by row, of events by enum cost_event. */
    u32 row_cycles[MOST_ROWS];
    u32 event_cycles[MOST_EVENTS];
    CoreStats stats;
    bool event_stops; /* machine_stop_at_events */
};

/* A debugger's watchpoint; and how far the exit for one has come. */
typedef struct {
    u32 linear, size, access;
} Watchpoint;
enum hit { HIT_NONE, HIT_HELD, HIT_DUE };

enum escape { ESCAPE_FAULT = 1, ESCAPE_EXIT = 2 };

struct Cpu {
    CpuState state;
    /* Lazy flags; flags.h. */
    struct {
        i64 result;
        u32 a, b, kind;
    } lazy;
    i64 left;               /* ticks before the limit of this slice */
    i64 limit;              /* state.tick when left is 0 */
    u32 mode;               /* mode word now */
    u64 room[SEG_COUNT];    /* bytes of a segment that any access may reach unchecked; or 0 */
    TlbEntry *tlb;          /* of the current privilege: tlbs[0] supervisor, tlbs[1] user */
    CodeTlbEntry *code_tlb; /* the same for instruction fetches */
    Block *block;           /* being executed, or NULL */
    const Insn *current;    /* the instruction that may fault; NULL between instructions */
    Machine *machine;
    Block *jump_cache[JUMP_CACHE]; /* by EIP; chain.h */
    TlbEntry tlbs[TLB_SPACES][TLB_SIZE];
    Translation walked[TLB_SPACES][TLB_SIZE]; /* what each entry is made of */
    CodeTlbEntry code_tlbs[TLB_SPACES][TLB_SIZE];
    /* By TLB space: the last byte that flat segments reach. Pages past it are guarded; cut.c. */
    u32 data_end[TLB_SPACES];

    jmp_buf escape;
    Fault fault; /* what raise_* raised, to be delivered */
    u32 fault_cr2;
    bool fault_is_trap; /* #DB after the instruction, INT n and the like */
    /* Event delivery under way, for double and triple faults; event.c. */
    bool delivering;
    u32 delivering_vector;
    u32 fault_count;
    Fault faults[3];

    Insn *stop;        /* the instruction overwritten to stop after its predecessor */
    u16 stop_op;       /* what it was */
    bool stop_pending; /* a jump's store wants a stop: `left` is lowered by STOP_BIAS */
    u32 stop_reason;   /* the exit to make at the stop, or 0: only leave the block */
    bool stepping;     /* an instruction runs alone; run.c */
    u32 held_shadow, held_debug_shadow, held_resume, held_hits; /* what it started with */
    int pending_exit;                 /* an exit that waits until a debug trap is delivered */
    u32 seen_cr0, seen_cr3, seen_cr4; /* what the TLB was filled under */
    u32 step_over; /* 1: at this tick a breakpoint at step_over_eip has been reported, or passed */
    u32 step_over_eip;
    u64 step_over_tick;
    u64 fault_tick; /* tick of the last fault, and how many there have been without progress */
    u32 faults_at_tick;
    u32 resumed_eip;  /* where the last delivery led, or cpu_run began */
    u64 retired_mark; /* tick at the last change of CPL, for retired_cpl0 */

    u32 code_breaks
        [4]; /* instruction breakpoints of the debug registers that blocks are marked for */
    u32 code_break_count;
    u32 *breakpoints;
    u32 breakpoint_count, breakpoint_room;
    Watchpoint watchpoints[WATCHPOINTS];
    u32 watchpoint_count;
    enum hit hit; /* HIT_HELD: an instruction without weight has met one */
    volatile u32 request;
    ExitRecord exit;
    TraceRecord *trace; /* ring of TRACE_RING, or NULL */
    u32 trace_head, trace_count;
    bool single;           /* cpu_step runs */
    const u8 *inline_code; /* its code, until that is taken; or NULL */
    u32 inline_size, inline_length;
    ControlBlock *control; /* of the guest that runs, in guest mode; or NULL */
    InFlight in_flight;    /* what is being delivered while `delivering` */
    bool again;            /* the first fault of its chain is the current instruction's own */
    u32 last_space;        /* the latest address-space id, and how often they have begun anew */
    u32 generation;
    u32 vendor[3];     /* as CPUID leaf 0 has it in EBX, EDX, ECX */
    u32 apic_mode;     /* enum apic_mode */
    bool apic_rose;    /* the output of an APIC that is lent has risen */
    bool unwatched;    /* stores to watched pages are not reported */
    const u32 *frames; /* machine pages of a guest's physical pages, or NULL */
    u32 frame_count;
    Cpu *next; /* on the machine */
};

#define STOP_BIAS ((i64)1 << 61)

/* -- run.c: the outer loop ----------------------------------------------------------------- */

/* Leave the current instruction with a fault; it has not changed anything. Never return. */
_Noreturn void raise_fault(Cpu *cpu, u32 vector);
_Noreturn void raise_error(Cpu *cpu, u32 vector, u32 error);
_Noreturn void raise_page_fault(Cpu *cpu, u32 linear, u32 error);
/* Leave the current instruction, unretired, with an exit to Python. */
_Noreturn void leave(Cpu *cpu, u32 reason);
_Noreturn void leave_unsupported(Cpu *cpu, u32 detail);
/* Let the current instruction retire, then leave its block; reason 0 goes on with the next. */
void stop_after(Cpu *cpu, u32 reason);
/* Executor's special ops: stop before this instruction; whether a block that can end at no tick may
   run; intercepts; breakpoints. */
void resume_at_stop(Cpu *cpu);
void hold(Cpu *cpu);
void guard(Cpu *cpu, const Insn *in);
void report_breakpoint(Cpu *cpu, const Insn *in);
/* The same at an EIP where there may be no instruction, but a fault instead. */
void meet_breakpoint(Cpu *cpu, u32 eip);
bool is_breakpoint(const Cpu *cpu, u32 linear);
/* Derive the mode word and TLB choice anew; call after any change of CPL, segments, EFLAGS.TF,
   debug registers, or CR0. */
void refresh_mode(Cpu *cpu);
/* Must user accesses be aligned (CR0.AM, EFLAGS.AC)? Such a CPU is in no flat mode. */
bool checks_alignment(const CpuState *state);
/* Change CPL, keeping the account of ticks retired at CPL 0; calls refresh_mode. */
void set_cpl(Cpu *cpu, u32 cpl);
/* Ticks and EIP as of the start of the current instruction, and its successor's EIP. */
u64 tick_now(const Cpu *cpu);
/* Ticks that the current instruction, the last of its block, may retire besides its own. */
i64 ticks_left(const Cpu *cpu);
/* Repeated string instructions: charge each iteration; then set EIP, to the instruction itself
   unless it is finished. `some`: iterations were charged, so that its own tick is one of them. */
void retire_iterations(Cpu *cpu, u32 iterations);
void end_repeat(Cpu *cpu, bool some, bool finished);
u32 current_eip(const Cpu *cpu);
u32 next_eip(const Cpu *cpu);

/* The pieces that cpu_run, cpu_inject and guest.c's entry are made of. */
void run_begin(Cpu *cpu);
void run_finish(Cpu *cpu);
int run_guarded(Cpu *cpu, u64 until);
int inject_guarded(Cpu *cpu, u32 vector, u32 kind, u32 has_error, u32 error);

/* -- execute.c ------------------------------------------------------------------------------ */
void execute(Cpu *cpu);

/* -- block.c -------------------------------------------------------------------------------- */
/* The block at state.eip in the present mode, decoded if need be. Raises fetch faults. */
Block *block_lookup(Cpu *cpu);
/* Code bytes at [address, address + size) of the machine are about to change. */
void block_store(Machine *machine, u32 address, u32 size);
void block_flush(Machine *machine);

/* Instructions that start in [address, address + size) of a weighted page count again. */
void block_forget_weights(Machine *machine, u32 address, u32 size);

/* -- decode.c ------------------------------------------------------------------------------- */
/* Decode the instruction in `code` (`size` bytes are there, 15 are enough) that sits at `eip`.
   Returns 0; or VECTOR_UD, VECTOR_GP (too long), VECTOR_NM (x87 with EM or TS); or -1 when it
   needs more bytes. */
int decode(const u8 *code, u32 size, u32 eip, u32 mode, u32 cr0, Insn *insn);

/* -- memory.c: slow paths of tlb.h ----------------------------------------------------------- */
u32 load_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size);
u32 load_update_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size);
void store_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size, u32 value);
/* The same of the stack where its limit is yet to be checked: in a flat mode word. */
u32 stack_load_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size);
void stack_store_slow(Cpu *cpu, const Insn *in, u32 linear, u32 size, u32 value);
/* Implicit supervisor accesses: descriptor tables and TSS, whatever the CPL. */
u32 load_system(Cpu *cpu, u32 linear, u32 size);
void store_system(Cpu *cpu, u32 linear, u32 size, u32 value);
/* Raise now what a store of `size` bytes at `linear` would raise (user: with CPL 3 rights). */
void probe_store(Cpu *cpu, u32 linear, u32 size, bool user);
/* Stores with the rights of the CPL that is being entered. */
void store_as(Cpu *cpu, u32 linear, u32 size, u32 value, bool user);
/* Host pointer for up to a page of bulk access at `linear`, or NULL if only single accesses do
   (device, code, watched page). Raises page faults. For writing, sets dirty. */
u8 *bulk_pointer(Cpu *cpu, u32 linear, bool write);
/* Host pointer to plain memory of a machine address, or NULL; no flags are looked at. */
u8 *machine_pointer(Machine *machine, u32 address);
/* A store by the processor itself (walker, descriptor bits): honours page flags. */
void machine_store32(Machine *machine, u32 address, u32 value);
u32 machine_load32(Machine *machine, u32 address);

/* -- paging.c -------------------------------------------------------------------------------- */
/* The machine address of `linear` by what has been walked, or else walk the tables, set accessed and
   dirty bits. Fills the TLB. Raises #PF. access: bits of enum access. */
u32 translate(Cpu *cpu, u32 linear, u32 access);
/* The same without any effect; ~0 where it would fault. *error gets the #PF error code. */
u64 translate_quietly(Cpu *cpu, u32 linear, u32 access, u32 *error);
void tlb_flush(Cpu *cpu);
void tlb_clear(Cpu *cpu); /* the same, also for addresses yet to come of this space */
void tlb_drop_page(Cpu *cpu, u32 linear);
/* Make all entries from `walked`, with the tags that the pages' flags allow now. */
void tlb_refill(Cpu *cpu);
/* Entries of all CPUs that would let stores by-pass the flags of this machine page go. */
void tlb_drop_writes(Machine *machine, u32 page);

/* -- nested.c: the second dimension ----------------------------------------------------------- */
/* A guest-physical address, translated by the host's tables. */
typedef struct {
    u32 machine;   /* of the byte */
    u32 error;     /* of the violation: bits of enum access, and 1 if it was present */
    bool writable; /* a store needs no walk either */
} Nested;
/* Walk; false on a violation. quiet: leave the tables' accessed and dirty bits. Adds to *steps. */
bool nested_walk(const Cpu *cpu, u32 physical, u32 access, bool quiet, Nested *to, u32 *steps);
/* Leave guest mode for a violation. walking: met while the guest's own tables were read. */
_Noreturn void leave_nested(Cpu *cpu, u32 physical, u32 linear, u32 error, bool walking);

/* -- segment.c: descriptors and segment registers -------------------------------------------- */
typedef struct {
    u32 low, high; /* the two doublewords */
    u32 linear;    /* where it stands */
} Descriptor;
/* Fetch the descriptor of a selector; raise `vector`(selector & ~3) if outside its table. */
Descriptor fetch_descriptor(Cpu *cpu, u32 selector, u32 vector);
bool fetch_descriptor_quietly(Cpu *cpu, u32 selector, Descriptor *descriptor);
Segment segment_of(u32 selector, Descriptor descriptor);
void mark_accessed(Cpu *cpu, Descriptor *descriptor);
/* MOV to and POP of a data or stack segment register, with all checks (SDM vol. 3, 5.6). */
void load_segment(Cpu *cpu, u32 segment, u32 selector);
/* Linear address of `size` bytes at offset in a segment, checked for reading or writing
   (#GP(0), #SS(0) for SS); FORM_ANY operands come here. */
u32 segment_linear(Cpu *cpu, u32 segment, u32 offset, u32 size, bool write);
void set_code_segment(Cpu *cpu, u32 selector, Descriptor descriptor, u32 cpl);

/* -- far.c ------------------------------------------------------------------------------------ */
void far_jump(Cpu *cpu, u32 selector, u32 offset, u32 bits);
void far_call(Cpu *cpu, u32 selector, u32 offset, u32 bits);
void far_return(Cpu *cpu, u32 bits, u32 release);
void interrupt_return(Cpu *cpu, u32 bits);

/* -- event.c ----------------------------------------------------------------------------------- */
/* Deliver through the IDT; the return EIP is state.eip. Raises nested faults. */
void deliver(Cpu *cpu, u32 vector, u32 kind, bool has_error, u32 error);
/* Deliver cpu->fault, turning nested faults into #DF and shutdown. Returns 0 or an exit reason. */
int deliver_fault(Cpu *cpu);
/* In guest mode: let the control block have the event whose delivery is given up. */
void note_in_flight(Cpu *cpu);
/* Deliver an exception that another CPU has met; it is the first of the chain. */
void deliver_reflected(Cpu *cpu, u32 vector, bool has_error, u32 error);

/* -- apic.c -------------------------------------------------------------------------------------- */
enum { MSR_APIC_BASE = 0x1B };
void apic_reset(Cpu *cpu);
void apic_hand_over(Cpu *to, const Cpu *from);
/* Is there a local APIC, and is it switched on? */
bool apic_enabled(const Cpu *cpu);
/* Does the core itself answer for it? */
INLINE bool apic_is_served(const Cpu *cpu) {
    return unlikely(cpu->apic_mode >= APIC_SERVED);
}
/* Does the core itself answer an access to this machine address? */
bool apic_serves(const Cpu *cpu, u32 address);
u32 apic_load(Cpu *cpu, u32 address, u32 size);
/* Make the stores in exit.posted, if all of them are for the core to make; false if not. */
bool apic_take_posted(Cpu *cpu);
/* WRMSR to IA32_APIC_BASE; raises #GP(0). */
void apic_set_base(Cpu *cpu, u64 value);
/* Has it an interrupt for the CPU, whose vector it knows? */
bool apic_interrupts(const Cpu *cpu);

/* -- debug.c: TF, debug registers, breakpoints, trace ------------------------------------------ */
/* Raise the trap #DB with these DR6 bits once the instruction has retired. */
void debug_after_instruction(Cpu *cpu, bool stepping);
/* Have blocks marked for the instruction breakpoints that are enabled now; before any runs. */
void debug_mark_code(Cpu *cpu);
/* Must each instruction run alone, for the debug registers' sake? */
bool debug_steps(const Cpu *cpu);
/* Is a block to be marked at linear address, for the debug registers' sake? */
bool debug_marks_code(const Cpu *cpu, u32 linear);
/* Raise #DB for an instruction breakpoint at linear address. */
void debug_before_instruction(Cpu *cpu, u32 linear);
bool debug_watches_page(const Cpu *cpu, u32 linear);
void debug_note_access(Cpu *cpu, u32 linear, u32 size, bool write);
/* The same for watchpoints; `access` is one of enum watch_access. */
bool watch_page(const Cpu *cpu, u32 linear);
void watch_note(Cpu *cpu, u32 linear, u32 size, u32 access);
void trace_push(Cpu *cpu, const TraceRecord *record);

#endif
