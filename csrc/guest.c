/*
 * guest.c - guest mode: hardware assistance, in the manner of VT-x and SVM.
 *
 * A guest in guest mode has all rings, its own tables and its own IDT, which this CPU uses as they
 * are: nothing need be deprivileged, and no instruction is unsafe. What the host wants to see, its
 * control block says; each such thing is an exit, and an exit leaves guest mode. So
 *
 *     entry   the host's state goes to the control block, the guest's comes from its CpuState; an
 *             event that the block holds is delivered through the guest's IDT
 *     exit    the guest's state goes back, the host's is loaded; the guest's exit record tells why
 *
 * The TLB is tagged: each guest's translations have an address-space id of its own, kept in the
 * control block, so neither an entry nor an exit flushes any. The host sees exceptions that it
 * intercepts one by one, before two of them make a double fault; if one was met while an event was
 * being delivered, the block has that event, as VT-x's IDT-vectoring information does, and it is
 * delivered again at the next entry unless the host takes it away.
 */
#include "guest.h"
#include "cut.h"

/* Blocks are decoded with what rows exit; another host's blocks will not do. */
static void load_intercepts(Cpu *cpu, const Intercepts *wanted) {
    Intercepts *now = &cpu->state.intercepts;
    if (memcmp(now->rows, wanted->rows, sizeof now->rows) != 0 ||
        memcmp(now->gp_rows, wanted->gp_rows, sizeof now->gp_rows) != 0) {
        *now = *wanted;
        block_flush(cpu->machine);
    }
    *now = *wanted;
}

static u32 merged(u32 guests, u32 hosts, u32 mask) {
    return (guests & ~mask) | (hosts & mask);
}

/* What the host's translations are valid under, beside its state. */
typedef struct {
    u32 generation, cr0, cr3, cr4;
} Seen;

static Seen enter(Cpu *cpu, const Cpu *guest, ControlBlock *control) {
    CpuState *state = &cpu->state;
    Seen host = {cpu->generation, cpu->seen_cr0, cpu->seen_cr3, cpu->seen_cr4};
    control->host = *state;
    *state = guest->state;
    control->guest_cr0 = state->cr0;
    control->guest_cr4 = state->cr4;
    state->intercepts = control->host.intercepts;
    load_intercepts(cpu, &control->intercepts);
    state->space = control->space;
    state->large_pages = control->large_pages;
    state->cr0 = merged(state->cr0, control->cr0, control->cr0_mask);
    state->cr4 = merged(state->cr4, control->cr4, control->cr4_mask);
    if (!control->nested) state->cr3 = control->root;
    cpu->seen_cr0 = control->seen_cr0;
    cpu->seen_cr3 = control->seen_cr3;
    cpu->seen_cr4 = control->seen_cr4;
    cpu->pending_exit = (int)control->pending_exit;
    cpu->control = control;
    if (control->flush || control->generation != cpu->generation) tlb_flush(cpu);
    control->flush = 0;
    return host;
}

/* What the guest's state says of the exit; data only where there are some. */
static void show_exit(const Cpu *cpu, Cpu *guest) {
    const ExitRecord *exit = &cpu->exit;
    memcpy(&guest->exit, exit, offsetof(ExitRecord, data));
    if (exit->reason == EXIT_PORT_WRITE && exit->count > 1)
        memcpy(guest->exit.data, exit->data, sizeof exit->data);
}

static void load_host(Cpu *cpu, const ControlBlock *control, const Seen *host) {
    Intercepts intercepts = cpu->state.intercepts; /* nothing is decoded until they change */
    cpu->control = NULL;
    cpu->state = control->host;
    cpu->state.intercepts = intercepts;
    cpu->seen_cr0 = host->cr0;
    cpu->seen_cr3 = host->cr3;
    cpu->seen_cr4 = host->cr4;
    if (host->generation != cpu->generation) tlb_flush(cpu);
}

static void save_guest(Cpu *cpu, Cpu *guest, ControlBlock *control) {
    CpuState *state = &cpu->state, before = guest->state;
    guest->state = *state;
    guest->state.intercepts = before.intercepts;
    guest->state.cr0 = merged(state->cr0, before.cr0, control->cr0_mask);
    guest->state.cr4 = merged(state->cr4, before.cr4, control->cr4_mask);
    if (!control->nested) guest->state.cr3 = before.cr3;
    guest->state.space = before.space;
    guest->state.large_pages = before.large_pages;
    tlb_flush(guest); /* what it has cached is of another time */
    control->space = state->space;
    control->large_pages = state->large_pages;
    control->seen_cr0 = cpu->seen_cr0;
    control->seen_cr3 = cpu->seen_cr3;
    control->seen_cr4 = cpu->seen_cr4;
    control->generation = cpu->generation;
    control->pending_exit = (u32)cpu->pending_exit;
    cpu->pending_exit = 0;
}

int cpu_run_guest(Cpu *cpu, Cpu *guest, ControlBlock *control, uint64_t until_tick) {
    InFlight event = control->event;
    Seen host = enter(cpu, guest, control);
    int reason = 0;
    control->event.valid = 0; /* it is in flight again should its delivery be given up */
    run_begin(cpu);
    if (event.valid && !event.again) {
        cpu->again = false;
        reason = inject_guarded(cpu, event.vector, event.kind, event.has_error, event.error);
        if (reason == 0) reason = (int)cpu->stop_reason;
    }
    if (reason == 0) reason = run_guarded(cpu, until_tick);
    cpu->exit.reason = (u32)reason;
    run_finish(cpu);
    show_exit(cpu, guest);
    save_guest(cpu, guest, control);
    load_host(cpu, control, &host);
    return reason;
}
