/*
 * The silicon oracle's helper: run user-mode IA-32 instructions on the host's own CPU.
 *
 * A case is a complete user-mode state: registers, EFLAGS, selectors, code bytes, two pages of data.
 * Its outcome is the same state afterwards and the exception that ended it. A case is entered by
 * rewriting a signal frame and returning from the signal: the kernel then loads every register at
 * once, TF included, and the next exception brings us back with all of them saved. So a case costs
 * one exception and one rt_sigreturn, and no fork.
 *
 * This program is freestanding: a case may load any selector into GS and point ESP anywhere, hence
 * no C library, no TLS, and every handler on an alternate stack. It lives in one zone of the address
 * space and unmaps all else, so a wild pointer meets a page fault and not a library.
 *
 * The other side is oracle.py, which compiles and starts this; the structures below are mirrored
 * there field by field. Read tests/oracles/case.py first: it says what a case means.
 */
#include <asm/ldt.h>
#include <asm/unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The address space, as in tests/oracles/case.py. oracle.py hands ZONE to the linker too. */
#define PAGE 0x1000u
#define LOW 0x00008000u  /* the data pages again, within reach of 16-bit addressing */
#define CODE 0x00400000u /* two pages, readable and executable */
#define DATA 0x00600000u /* two pages, readable, writable and executable */
#define AREA (2 * PAGE)
#define ZONE 0xB0000000u /* our text, data and stacks */
#define SHARED (ZONE + 0x100000u)
#define ZONE_END (ZONE + 0x800000u)
#define TOP 0xFFFFE000u /* end of a 32-bit process under a 64-bit kernel */
#define DESCRIPTORS 32
#define CODE_MAX 896

struct slot {
    /* The state: in before the case, out after it. Registers in encoding order, EAX to EDI. */
    uint32_t registers[8], eip, eflags;
    uint16_t selectors[6]; /* ES CS SS DS FS GS */
    /* in */
    uint32_t code_at; /* linear address of the code bytes */
    uint16_t steps;   /* instructions to run under TF; 0: run without TF up to an exception */
    uint16_t code_length;
    /* out */
    uint32_t signal, vector, error, cr2;
    uint32_t taken; /* single-step traps seen */
    uint8_t pad[48];
    uint8_t code[CODE_MAX];
    uint8_t memory[AREA];
};
_Static_assert(sizeof(struct slot) == 1024 + AREA, "mirrored in oracle.py");

struct shared {
    uint8_t code[AREA], data[AREA]; /* the pages behind CODE and DATA */
    struct user_desc ldt[DESCRIPTORS];
    uint32_t current; /* index of the running case, for the obituary */
    uint8_t pad[PAGE - DESCRIPTORS * sizeof(struct user_desc) - 4];
    struct slot slots[];
};
_Static_assert(offsetof(struct shared, slots) == 2 * AREA + PAGE, "mirrored in oracle.py");

/* What the kernel pushes; asm/sigcontext.h cannot be used without the C library's signal types. */
struct sigcontext32 {
    uint16_t gs, gsh, fs, fsh, es, esh, ds, dsh;
    uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax;
    uint32_t trapno, err, eip;
    uint16_t cs, csh;
    uint32_t eflags, esp_at_signal;
    uint16_t ss, ssh;
    uint32_t fpstate, oldmask, cr2;
};

struct ucontext32 {
    uint32_t flags, link;
    uint32_t stack_base, stack_flags, stack_size;
    struct sigcontext32 context;
    uint32_t mask[2];
};

enum { SIGILL = 4, SIGTRAP = 5, SIGBUS = 7, SIGFPE = 8, SIGSEGV = 11, SIGALRM = 14, SIGSYS = 31 };
enum { VECTOR_DB = 1, FLAG_TF = 1 << 8, FLAG_NT = 1 << 14, FLAG_ID = 1 << 21, INT3 = 0xCC };
enum { UD2_LENGTH = 2 };

static struct {
    uint32_t index, count; /* the batch */
    uint32_t steps_left;
    uint32_t alarmed;         /* the case running at the last alarm, plus 1 */
    bool running;             /* false: the signal is our own UD2, which starts a batch */
    struct sigcontext32 home; /* where the batch was started */
    struct user_desc ldt[DESCRIPTORS];
} state;

static struct shared *const shared = (struct shared *)SHARED;
static uint8_t main_stack[0x4000] __attribute__((aligned(16), used));
static uint8_t signal_stack[0x10000] __attribute__((aligned(16)));

static long call6(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    /* EBP carries the sixth argument; it cannot be an asm operand in every build. */
    __asm__ volatile("pushl %[f]\n\t"
                     "pushl %%ebp\n\t"
                     "movl 4(%%esp), %%ebp\n\t"
                     "int $0x80\n\t"
                     "popl %%ebp\n\t"
                     "addl $4, %%esp"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [f] "m"(f)
                     : "memory", "cc");
    return result;
}

static long call3(long number, long a, long b, long c) {
    return call6(number, a, b, c, 0, 0, 0);
}

static void leave(int status) {
    for (;;) call3(__NR_exit_group, status, 0, 0);
}

static void copy(void *to, const void *from, uint32_t size) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

static void fill(void *to, uint8_t value, uint32_t size) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
}

/* The code area is INT3 but for the running case's bytes, so whatever strays into it stops. */
static uint8_t *code_of(const struct slot *slot) {
    return shared->code + (slot->code_at - CODE);
}

static void load_case(struct sigcontext32 *context, const struct slot *slot) {
    copy(code_of(slot), slot->code, slot->code_length);
    copy((void *)DATA, slot->memory, AREA);
    context->eax = slot->registers[0];
    context->ecx = slot->registers[1];
    context->edx = slot->registers[2];
    context->ebx = slot->registers[3];
    context->esp = slot->registers[4];
    context->ebp = slot->registers[5];
    context->esi = slot->registers[6];
    context->edi = slot->registers[7];
    context->eip = slot->eip;
    context->eflags = slot->eflags;
    if (slot->steps) context->eflags |= FLAG_TF;
    context->es = slot->selectors[0];
    context->cs = slot->selectors[1];
    context->ss = slot->selectors[2];
    context->ds = slot->selectors[3];
    context->fs = slot->selectors[4];
    context->gs = slot->selectors[5];
    state.steps_left = slot->steps;
}

static void store_outcome(struct slot *slot, const struct sigcontext32 *context, uint32_t signal) {
    slot->registers[0] = context->eax;
    slot->registers[1] = context->ecx;
    slot->registers[2] = context->edx;
    slot->registers[3] = context->ebx;
    slot->registers[4] = context->esp;
    slot->registers[5] = context->ebp;
    slot->registers[6] = context->esi;
    slot->registers[7] = context->edi;
    slot->eip = context->eip;
    slot->eflags = context->eflags;
    slot->selectors[0] = context->es;
    slot->selectors[1] = context->cs;
    slot->selectors[2] = context->ss;
    slot->selectors[3] = context->ds;
    slot->selectors[4] = context->fs;
    slot->selectors[5] = context->gs;
    slot->signal = signal;
    slot->vector = context->trapno;
    slot->error = context->err;
    slot->cr2 = context->cr2;
    slot->taken = slot->steps - state.steps_left;
    copy(slot->memory, (void *)DATA, AREA);
    fill(code_of(slot), INT3, slot->code_length);
}

/* True if the case goes on: a step remains, or an alarm found it running for the first time. */
static bool goes_on(struct sigcontext32 *context, uint32_t signal) {
    if (signal == SIGALRM) {
        bool again = state.alarmed == state.index + 1;
        state.alarmed = state.index + 1;
        return !again;
    }
    if (signal != SIGTRAP || context->trapno != VECTOR_DB || state.steps_left == 0) return false;
    if (--state.steps_left == 0) return false;
    context->eflags |= FLAG_TF;
    return true;
}

static void next_case(struct sigcontext32 *context) {
    if (state.index < state.count) {
        shared->current = state.index;
        load_case(context, &shared->slots[state.index]);
    } else {
        state.running = false;
        *context = state.home;
        context->eip += UD2_LENGTH;
    }
}

/*
 * Called on the alternate stack with flat segments. Returns the flags which rt_sigreturn does not
 * take from the frame (it keeps NT and ID as they are), for the stub to load.
 */
__attribute__((used)) static uint32_t on_signal(uint32_t signal, struct ucontext32 *frame) {
    struct sigcontext32 *context = &frame->context;
    if (!state.running) {
        if (signal == SIGALRM) return context->eflags & (FLAG_NT | FLAG_ID);
        if (signal != SIGILL) leave(3);
        state.running = true;
        state.home = *context;
        next_case(context);
    } else if (!goes_on(context, signal)) {
        store_outcome(&shared->slots[state.index], context, signal);
        state.index++;
        next_case(context);
    }
    return context->eflags & (FLAG_NT | FLAG_ID);
}

/* Entry: return address, signal, siginfo, ucontext. AC and NT are still the case's: clear them. */
void signal_stub(void);
__asm__("signal_stub:\n\t"
        "pushl $2\n\t"
        "popfl\n\t"
        "movl 4(%esp), %eax\n\t"
        "movl 12(%esp), %edx\n\t"
        "pushl %edx\n\t"
        "pushl %eax\n\t"
        "call on_signal\n\t"
        "addl $12, %esp\n\t"
        "orl $2, %eax\n\t"
        "pushl %eax\n\t"
        "popfl\n\t"
        "movl $173, %eax\n\t" /* rt_sigreturn: ESP is 4 above the frame, as after RET */
        "int $0x80\n\t");
_Static_assert(__NR_rt_sigreturn == 173, "used in signal_stub");

static void check(long result, int status) {
    if (result < 0 && result > -4096) leave(status);
}

static void install_handlers(void) {
    static const uint8_t signals[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGALRM, SIGSYS};
    enum { SIGINFO = 4, RESTORER = 0x04000000, ONSTACK = 0x08000000, RESTART = 0x10000000 };
    struct {
        void (*handler)(void);
        uint32_t flags;
        void (*restorer)(void);
        uint32_t mask[2];
    } action = {signal_stub, SIGINFO | RESTORER | ONSTACK | RESTART, signal_stub, {0, 0}};
    /* AUTODISARM: an ESP which happens to point into this stack must not count as being on it. */
    struct {
        void *base;
        uint32_t flags, size;
    } stack = {signal_stack, 1u << 31, sizeof signal_stack};
    check(call3(__NR_sigaltstack, (long)&stack, 0, 0), 10);
    action.mask[0] = 1u << (SIGALRM - 1);
    for (unsigned i = 0; i < sizeof signals; i++)
        check(call6(__NR_rt_sigaction, signals[i], (long)&action, 0, 8, 0, 0), 11);
}

static long map(uint32_t at, uint32_t size, int protection, int file, uint32_t offset) {
    enum { MAP_SHARED = 1, MAP_FIXED = 0x10, MAP_POPULATE = 0x8000 };
    return call6(__NR_mmap2, at, size, protection, MAP_SHARED | MAP_FIXED | MAP_POPULATE, file,
                 offset / PAGE);
}

/* Returns whether LOW could be mapped: vm.mmap_min_addr may forbid it. */
static bool lay_out_memory(int file, uint32_t slots) {
    enum { READ = 1, WRITE = 2, EXEC = 4 };
    uint32_t size = 2 * AREA + PAGE + slots * sizeof(struct slot);
    check(call3(__NR_munmap, 0, ZONE, 0), 20);
    check(call3(__NR_munmap, ZONE_END, TOP - ZONE_END, 0), 21);
    if (size > ZONE_END - SHARED) leave(22);
    check(map(SHARED, size, READ | WRITE, file, 0), 23);
    fill(shared->code, INT3, AREA);
    check(map(CODE, AREA, READ | EXEC, file, 0), 24);
    check(map(DATA, AREA, READ | WRITE | EXEC, file, AREA), 25);
    return map(LOW, AREA, READ | WRITE | EXEC, file, AREA) == LOW;
}

/* A case must never reach the kernel: only code in our zone may make system calls. */
static bool forbid_system_calls(void) {
    enum { PR_SET_NO_NEW_PRIVS = 38, PR_SET_SECCOMP = 22 };
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ZONE, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SHARED, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    return call6(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0) == 0 &&
           call6(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (long)&filter, 0, 0, 0) == 0;
}

static bool same(const struct user_desc *a, const struct user_desc *b) {
    const uint32_t *left = (const void *)a, *right = (const void *)b;
    for (unsigned i = 0; i < sizeof *a / 4; i++)
        if (left[i] != right[i]) return false;
    return true;
}

/* Returns 0, or 1 + the entry which the kernel refused. */
static uint32_t install_ldt(void) {
    enum { WRITE_LDT = 0x11 };
    for (uint32_t i = 0; i < DESCRIPTORS; i++) {
        if (same(&state.ldt[i], &shared->ldt[i])) continue;
        if (call3(__NR_modify_ldt, WRITE_LDT, (long)&shared->ldt[i], sizeof state.ldt[i]) != 0)
            return i + 1;
        copy(&state.ldt[i], &shared->ldt[i], sizeof state.ldt[i]);
    }
    return 0;
}

static uint32_t run_batch(uint32_t count) {
    enum { HALF_SECOND = 500000 };
    uint32_t on[4] = {0, HALF_SECOND, 0, HALF_SECOND}, off[4] = {0, 0, 0, 0};
    if (count == 0) return 0;
    state.index = 0;
    state.count = count;
    state.alarmed = 0;
    call3(__NR_setitimer, 0, (long)on, 0);
    __asm__ volatile("ud2" : : : "memory");
    call3(__NR_setitimer, 0, (long)off, 0);
    return 0;
}

static uint32_t number(const char *text) {
    uint32_t value = 0;
    while (*text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
    return value;
}

/* argv: the shared file's descriptor, the number of slots. Commands: 'L' 0, 'R' count. */
__attribute__((used)) static void helper_main(char **argv) {
    struct {
        uint32_t operation, count;
    } command;
    uint32_t file = number(argv[1]), slots = number(argv[2]);
    uint32_t reply = 0;
    bool low = lay_out_memory((int)file, slots);
    install_handlers();
    reply = 1u | (uint32_t)low << 1 | (uint32_t)forbid_system_calls() << 2;
    for (;;) {
        if (call3(__NR_write, 1, (long)&reply, sizeof reply) != sizeof reply) leave(30);
        if (call3(__NR_read, 0, (long)&command, sizeof command) != sizeof command) leave(0);
        reply = command.operation == 'L' ? install_ldt() : run_batch(command.count);
    }
}

/* argv is on the kernel's stack, which lay_out_memory unmaps: it is read before. */
__asm__(".globl _start\n"
        "_start:\n\t"
        "leal 4(%esp), %eax\n\t"
        "movl $main_stack + 0x4000 - 16, %esp\n\t"
        "pushl %eax\n\t"
        "call helper_main\n\t"
        "ud2\n\t");
