/*
 * nested.c - nested paging: what a guest takes for physical addresses goes through tables of the
 * host's (SVM; AMD64 manual vol. 2, 15.25. VT-x has the same in EPT).
 *
 * The host's tables are those of 32-bit paging, with 4 KiB and 4 MiB pages, and hold machine
 * addresses. paging.c comes here for each entry of the guest's tables that it reads and for the page
 * in the end: of a two-level walk that makes 2 + 2 + 2 reads of the host's tables besides the two of
 * the guest's. A guest's access is a user's to them, whatever the guest's ring. Their accessed and
 * dirty bits tell the host what its guest has used. What they do not allow is a violation, an exit:
 * the guest never hears of it. Read guest.c next.
 */
#include "tlb.h"

/* Does an entry allow it? If not, `to` says what is wrong. */
static bool allows(u32 entry, u32 access, Nested *to) {
    u32 wanted = ENTRY_PRESENT | ENTRY_USER | (access & ACCESS_WRITE ? ENTRY_WRITABLE : 0);
    to->error = (access & ACCESS_WRITE) | (entry & ENTRY_PRESENT);
    return (entry & wanted) == wanted;
}

static void mark(Machine *machine, u32 at, u32 *entry, u32 bits, bool quiet) {
    if (quiet || (*entry & bits) == bits) return;
    *entry |= bits;
    machine_store32(machine, at, *entry);
}

bool nested_walk(const Cpu *cpu, u32 physical, u32 access, bool quiet, Nested *to, u32 *steps) {
    Machine *machine = cpu->machine;
    u32 used = ENTRY_ACCESSED | (access & ACCESS_WRITE ? ENTRY_DIRTY : 0);
    u32 at = PAGE_OF(cpu->control->root) + (physical >> 22) * 4,
        entry = machine_load32(machine, at);
    u32 mask = LARGE_MASK, upper = ENTRY_WRITABLE;
    to->machine = 0;
    to->writable = false;
    ++*steps;
    if (!allows(entry, access, to)) return false;
    if (!(entry & ENTRY_LARGE)) {
        u32 above = at, directory = entry;
        at = PAGE_OF(entry) + (physical >> 12 & 1023) * 4;
        entry = machine_load32(machine, at);
        ++*steps;
        if (!allows(entry, access, to)) return false;
        mark(machine, above, &directory, ENTRY_ACCESSED, quiet);
        mask = PAGE_MASK;
        upper = directory;
    }
    mark(machine, at, &entry, used, quiet);
    to->machine = (entry & ~mask & ~(u32)PAGE_MASK) | (physical & mask);
    to->writable = (entry & upper & ENTRY_WRITABLE) && (entry & ENTRY_DIRTY);
    return true;
}

_Noreturn void leave_nested(Cpu *cpu, u32 physical, u32 linear, u32 error, bool walking) {
    cpu->exit.address = physical;
    cpu->exit.linear = linear;
    cpu->exit.error = error;
    cpu->exit.detail = walking;
    leave(cpu, EXIT_NESTED);
}
