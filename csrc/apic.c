/*
 * apic.c - the local APIC (SDM vol. 3, chapter 11; Intel 82489DX and P6 family).
 *
 * A request travels  message, timer, LINT0 or error -> IRR -> priority -> CPU -> ISR -> EOI.  It is
 * part of the processor, so its state is in CpuState, and where nobody wants to watch the core serves
 * it alone: device_load asks here at once, for reading a register changes nothing (but ESR, if it is
 * none); stores are posted like any device's and made when their instruction has retired. Only an EOI
 * that an I/O APIC must hear of leaves for Python. A hypervisor can lend the real CPU's to the guest
 * that runs there, with the guest's state in it: the guest then needs no exit for it, until its output
 * rises. state.interrupt_line says whether the CPU has something to take:
 *
 *     INTR      the 8259s' output, where LINT0 is ExtINT or the APIC is switched off
 *     DELIVERS  a vector of IRR whose class is above the processor priority
 *
 * The timer counts ticks: its bus runs at one cycle a tick. Nothing happens between two interrupts,
 * so the count is worked out when it is read.
 *
 * Reset leaves what a PC's firmware leaves, virtual wire mode: enabled, LINT0 ExtINT, LINT1 NMI.
 * Left out: moving the registers (#GP), NMI, SMI, INIT and start-up messages (there is no second
 * processor), TSC-deadline mode, thermal and performance interrupts (nothing raises them). Read
 * emulator/devices/ioapic.py next.
 */
#include "flags.h"

enum {
    BASE_BSP = 1 << 8,
    BASE_ENABLE = 1 << 11,

    INTR = 1,
    DELIVERS = 2,

    VERSION = 0x50014, /* integrated, and the highest of LVT's entries is number 5 */
    SVR_ENABLE = 1 << 8,
    LVT_MASKED = 1 << 16,
    LVT_PERIODIC = 1 << 17,
    LVT_MODE = 7 << 8,
    FIXED = 0,
    LOWEST_PRIORITY = 1,
    EXTINT = 7,
    FIRST_VECTOR = 16, /* those below are illegal */

    ERROR_SENT_VECTOR = 1 << 5,
    ERROR_RECEIVED_VECTOR = 1 << 6,
    ERROR_REGISTER = 1 << 7,

    ICR_LOGICAL = 1 << 11,
    ICR_LEVEL = 1 << 14,
    ICR_TRIGGER = 1 << 15,
    ICR_WRITABLE = 0x000CCFFF,
    SELF = 1,
    ALL = 2,
    OTHERS = 3,
    BROADCAST = 0xFF,
    DFR_FLAT = 15
};

/* Offsets of registers, in units of 16 bytes. */
enum {
    ID = 0x02,
    VERSION_REGISTER = 0x03,
    TPR = 0x08,
    APR = 0x09,
    PPR = 0x0A,
    EOI = 0x0B,
    LDR = 0x0D,
    DFR = 0x0E,
    SVR = 0x0F,
    ISR = 0x10,
    TMR = 0x18,
    IRR = 0x20,
    ESR = 0x28,
    ICR_LOW = 0x30,
    ICR_HIGH = 0x31,
    LVT = 0x32,
    INITIAL_COUNT = 0x38,
    CURRENT_COUNT = 0x39,
    DIVIDE = 0x3E
};

static const u64 NEVER = ~(u64)0;

/* What can be written of each LVT entry. */
static const u32 lvt_writable[LVT_COUNT] = {0x300FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF};

/* -- Priority ------------------------------------------------------------------------------------- */

static bool has(const u32 *set, u32 vector) {
    return set[vector / 32] >> vector % 32 & 1;
}

static void put(u32 *set, u32 vector, bool value) {
    u32 bit = 1u << vector % 32;
    set[vector / 32] = value ? set[vector / 32] | bit : set[vector / 32] & ~bit;
}

/* The highest vector of a set, or -1. */
static int highest(const u32 *set) {
    for (int i = 7; i >= 0; i--)
        if (set[i]) return i * 32 + 31 - __builtin_clz(set[i]);
    return -1;
}

/* SDM vol. 3, 11.8.3.1: the higher class of TPR and of what is being served. */
static u32 processor_priority(const Apic *apic) {
    int served = highest(apic->isr);
    u32 class = served < 0 ? 0 : (u32)served & 0xF0;
    return (apic->tpr & 0xF0) >= class ? apic->tpr : class;
}

/* The vector to deliver, or -1. */
static int pending(const Apic *apic) {
    int vector = highest(apic->irr);
    return vector >= 0 && ((u32)vector & 0xF0) > (processor_priority(apic) & 0xF0) ? vector : -1;
}

bool apic_enabled(const Cpu *cpu) {
    return cpu->state.apic.base & BASE_ENABLE;
}

static bool is_masked(u32 entry) {
    return entry & LVT_MASKED;
}

static u32 mode_of(u32 entry) {
    return (entry & LVT_MODE) >> 8;
}

/* Does the 8259s' output reach the CPU itself? */
static bool passes_intr(const Cpu *cpu) {
    u32 lint0 = cpu->state.apic.lvt[LVT_LINT0];
    return !apic_enabled(cpu) || (!is_masked(lint0) && mode_of(lint0) == EXTINT);
}

static void update(Cpu *cpu) {
    Apic *apic = &cpu->state.apic;
    u32 line = apic->intr && passes_intr(cpu) ? INTR : 0;
    if (apic_enabled(cpu) && pending(apic) >= 0) line |= DELIVERS;
    if (cpu->apic_mode == APIC_LENT && cpu->control == NULL) {
        cpu->apic_rose |= line && !apic->asserted;
        apic->asserted = line != 0;
    } else {
        cpu->state.interrupt_line = line;
    }
}

/* -- Requests ------------------------------------------------------------------------------------- */

static void request(Cpu *cpu, u32 vector, bool level);

/* An error: of the register of errors, and of an interrupt if it is wanted. */
static void note_error(Cpu *cpu, u32 error) {
    Apic *apic = &cpu->state.apic;
    u32 entry = apic->lvt[LVT_ERROR];
    bool first = !(apic->errors & error);
    apic->errors |= error;
    /* Its own vector may be the illegal one: that is told once. */
    if (first && !is_masked(entry)) request(cpu, entry & 0xFF, false);
}

static void request(Cpu *cpu, u32 vector, bool level) {
    Apic *apic = &cpu->state.apic;
    if (vector < FIRST_VECTOR) {
        note_error(cpu, ERROR_RECEIVED_VECTOR);
        return;
    }
    put(apic->irr, vector, true);
    put(apic->tmr, vector, level);
    update(cpu);
}

bool apic_interrupts(const Cpu *cpu) {
    return cpu->state.interrupt_line & DELIVERS;
}

int cpu_acknowledge(Cpu *cpu) {
    Apic *apic = &cpu->state.apic;
    int vector = apic_enabled(cpu) ? pending(apic) : -1;
    if (vector < 0) return -1;
    put(apic->irr, (u32)vector, false);
    put(apic->isr, (u32)vector, true);
    update(cpu);
    return vector;
}

/* Returns the vector if an I/O APIC must be told, else -1. */
static int end_of_interrupt(Cpu *cpu) {
    Apic *apic = &cpu->state.apic;
    int vector = highest(apic->isr);
    if (vector < 0) return -1;
    put(apic->isr, (u32)vector, false);
    update(cpu);
    return has(apic->tmr, (u32)vector) ? vector : -1;
}

void cpu_set_interrupt(Cpu *cpu, int level) {
    Apic *apic = &cpu->state.apic;
    u32 lint0 = apic->lvt[LVT_LINT0];
    bool rises = level && !apic->intr;
    apic->intr = level != 0;
    if (rises && apic_enabled(cpu) && !is_masked(lint0) && mode_of(lint0) == FIXED)
        request(cpu, lint0 & 0xFF, false);
    update(cpu);
}

/* -- Messages --------------------------------------------------------------------------------------- */

static bool is_meant(const Apic *apic, u32 destination, bool logical) {
    u32 mine = apic->ldr >> 24;
    if (destination == BROADCAST) return true;
    if (!logical) return destination == apic->id >> 24;
    if (apic->dfr >> 28 == DFR_FLAT) return (destination & mine) != 0;
    return destination >> 4 == mine >> 4 && (destination & mine & 15) != 0;
}

int cpu_apic_message(Cpu *cpu, uint32_t destination, int logical, uint32_t mode, uint32_t vector,
                     int level) {
    const Apic *apic = &cpu->state.apic;
    if (!apic_enabled(cpu) || !is_meant(apic, destination, logical)) return 0;
    if (mode != FIXED && mode != LOWEST_PRIORITY) return 0;
    if (!(apic->svr & SVR_ENABLE)) return 0;
    request(cpu, vector & 0xFF, level);
    return 1;
}

/* A write to the low half of the interrupt command register sends. Only this CPU can be meant. */
static void send(Cpu *cpu) {
    const Apic *apic = &cpu->state.apic;
    u32 low = apic->icr_low, mode = mode_of(low), shorthand = low >> 18 & 3;
    bool mine = shorthand == SELF || shorthand == ALL ||
                (shorthand == 0 && is_meant(apic, apic->icr_high >> 24, low & ICR_LOGICAL));
    if (mode != FIXED && mode != LOWEST_PRIORITY) return;
    if ((low & 0xFF) < FIRST_VECTOR) {
        note_error(cpu, ERROR_SENT_VECTOR);
        return;
    }
    if (mine && apic->svr & SVR_ENABLE)
        request(cpu, low & 0xFF, (low & (ICR_TRIGGER | ICR_LEVEL)) == (ICR_TRIGGER | ICR_LEVEL));
}

/* -- The timer ---------------------------------------------------------------------------------------- */

/* Ticks a count: SDM vol. 3, figure 11-10; 1 is the last of the eight codes. */
static u64 divisor(const Apic *apic) {
    u32 code = (apic->divide & 3) | (apic->divide >> 1 & 4);
    return 1u << (code + 1) % 8;
}

static bool is_periodic(const Apic *apic) {
    return apic->lvt[LVT_TIMER] & LVT_PERIODIC;
}

static u32 current_count(const Apic *apic, u64 tick) {
    u64 period = apic->initial_count * divisor(apic), elapsed = tick - apic->timer_start;
    if (period == 0 || apic->expired) return 0;
    if (is_periodic(apic))
        elapsed %= period;
    else if (elapsed >= period)
        return 0;
    return apic->initial_count - (u32)(elapsed / divisor(apic));
}

/* Find when it interrupts next, after a change or an interrupt. */
static void schedule(Cpu *cpu, u64 tick) {
    const Apic *apic = &cpu->state.apic;
    u64 period = apic->initial_count * divisor(apic), elapsed = tick - apic->timer_start;
    cpu->state.timer_due = NEVER;
    if (period == 0 || apic->expired || is_masked(apic->lvt[LVT_TIMER])) return;
    if (is_periodic(apic) || elapsed < period)
        cpu->state.timer_due = apic->timer_start + (elapsed / period + 1) * period;
}

/* Before its mode changes: a count that has come to 0 in the old one stays there. */
static void settle_timer(Apic *apic, u64 tick) {
    if (!is_periodic(apic) && current_count(apic, tick) == 0) apic->expired = 1;
}

static void set_divide(Apic *apic, u64 tick, u32 value) {
    u32 done = apic->initial_count - current_count(apic, tick);
    settle_timer(apic, tick);
    apic->divide = value & 11;
    apic->timer_start = tick - done * divisor(apic); /* the rest at the new speed */
}

void cpu_apic_advance(Cpu *cpu) {
    Apic *apic = &cpu->state.apic;
    if (cpu->state.tick < cpu->state.timer_due) return;
    if (!is_periodic(apic)) apic->expired = 1;
    schedule(cpu, cpu->state.tick);
    request(cpu, apic->lvt[LVT_TIMER] & 0xFF, false);
}

/* -- Registers ------------------------------------------------------------------------------------------ */

/* SDM vol. 3, table 11-1. */
static bool is_register(u32 number) {
    return number == ID || number == VERSION_REGISTER || (number >= TPR && number <= EOI) ||
           (number >= LDR && number <= ESR) || (number >= ICR_LOW && number < LVT + LVT_COUNT) ||
           number == INITIAL_COUNT || number == CURRENT_COUNT || number == DIVIDE;
}

static u32 read_register(const Apic *apic, u32 number, u64 tick) {
    if (number >= ISR && number < ISR + 8) return apic->isr[number - ISR];
    if (number >= TMR && number < TMR + 8) return apic->tmr[number - TMR];
    if (number >= IRR && number < IRR + 8) return apic->irr[number - IRR];
    if (number >= LVT && number < LVT + LVT_COUNT) return apic->lvt[number - LVT];
    switch (number) {
    case ID: return apic->id;
    case VERSION_REGISTER: return VERSION;
    case TPR: return apic->tpr;
    case PPR: return processor_priority(apic);
    case APR:
    case EOI: return 0;
    case LDR: return apic->ldr;
    case DFR: return apic->dfr;
    case SVR: return apic->svr;
    case ESR: return apic->esr;
    case ICR_LOW: return apic->icr_low;
    case ICR_HIGH: return apic->icr_high;
    case INITIAL_COUNT: return apic->initial_count;
    case CURRENT_COUNT: return current_count(apic, tick);
    case DIVIDE: return apic->divide;
    default: return 0;
    }
}

static void set_lvt(Cpu *cpu, u32 entry, u32 value) {
    Apic *apic = &cpu->state.apic;
    value &= lvt_writable[entry];
    if (!(apic->svr & SVR_ENABLE)) value |= LVT_MASKED;
    if (entry == LVT_TIMER) settle_timer(apic, cpu->state.tick);
    apic->lvt[entry] = value;
    if (entry == LVT_TIMER) schedule(cpu, cpu->state.tick);
}

/* Software disables: all of LVT is masked, for good. */
static void set_svr(Cpu *cpu, u32 value) {
    Apic *apic = &cpu->state.apic;
    apic->svr = value & 0x3FF;
    if (value & SVR_ENABLE) return;
    for (u32 i = 0; i < LVT_COUNT; i++) apic->lvt[i] |= LVT_MASKED;
    schedule(cpu, cpu->state.tick);
}

static void set_initial_count(Cpu *cpu, u32 value) {
    Apic *apic = &cpu->state.apic;
    apic->initial_count = value;
    apic->timer_start = cpu->state.tick;
    apic->expired = 0;
    schedule(cpu, cpu->state.tick);
}

static void write_register(Cpu *cpu, u32 number, u32 value) {
    Apic *apic = &cpu->state.apic;
    if (number >= LVT && number < LVT + LVT_COUNT) {
        set_lvt(cpu, number - LVT, value);
        return;
    }
    switch (number) {
    case ID: apic->id = value & 0xFF000000; break;
    case TPR: apic->tpr = value & 0xFF; break;
    case LDR: apic->ldr = value & 0xFF000000; break;
    case DFR: apic->dfr = value | 0x0FFFFFFF; break;
    case SVR: set_svr(cpu, value); break;
    case ESR:
        apic->esr = apic->errors;
        apic->errors = 0;
        break;
    case ICR_LOW:
        apic->icr_low = value & ICR_WRITABLE;
        send(cpu);
        break;
    case ICR_HIGH: apic->icr_high = value & 0xFF000000; break;
    case INITIAL_COUNT: set_initial_count(cpu, value); break;
    case DIVIDE:
        set_divide(apic, cpu->state.tick, value);
        schedule(cpu, cpu->state.tick);
        break;
    default: break;
    }
}

/* A register fills the first 4 of its 16 bytes. What is not aligned is read byte by byte, as a bus
   would bring it. */
static u32 read_at(Cpu *cpu, u32 address, u32 size, u64 tick) {
    u32 number = (address & PAGE_MASK) >> 4, byte = address & 15, value = 0;
    if (!apic_enabled(cpu)) return size_mask(size * 8);
    if (address & (size - 1)) {
        for (u32 i = 0; i < size; i++) value |= read_at(cpu, address + i, 1, tick) << i * 8;
        return value;
    }
    if (byte >= 4) return 0;
    if (!is_register(number)) note_error(cpu, ERROR_REGISTER);
    value = read_register(&cpu->state.apic, number, tick) >> byte * 8;
    return value & size_mask(size * 8);
}

uint32_t cpu_apic_read(Cpu *cpu, uint32_t address, uint32_t size) {
    return read_at(cpu, address, size, cpu->state.tick);
}

/* Of stores the SDM promises only those of an aligned doubleword to work (11.4.1); no other does. */
int cpu_apic_write(Cpu *cpu, uint32_t address, uint32_t size, uint32_t value) {
    u32 number = (address & PAGE_MASK) >> 4;
    if (!apic_enabled(cpu) || size != 4 || address & 15) return -1;
    if (!is_register(number)) note_error(cpu, ERROR_REGISTER);
    if (number == EOI) return end_of_interrupt(cpu);
    write_register(cpu, number, value);
    update(cpu);
    return -1;
}

/* -- What the core serves itself --------------------------------------------------------------------------- */

bool apic_serves(const Cpu *cpu, u32 address) {
    return apic_is_served(cpu) && PAGE_OF(address) == APIC_BASE;
}

u32 apic_load(Cpu *cpu, u32 address, u32 size) {
    u32 errors = cpu->state.apic.errors, value = read_at(cpu, address, size, tick_now(cpu));
    /* An error can be an interrupt: of the next instruction. */
    if (unlikely(cpu->state.apic.errors != errors)) stop_after(cpu, 0);
    return value;
}

/* Is this the EOI of a level-triggered interrupt? */
static bool is_broadcast(const Apic *apic, const PostedWrite *store) {
    int vector = highest(apic->isr);
    return (store->address & PAGE_MASK) >> 4 == EOI && vector >= 0 && has(apic->tmr, (u32)vector);
}

bool apic_take_posted(Cpu *cpu) {
    const ExitRecord *exit = &cpu->exit;
    if (!apic_is_served(cpu)) return false;
    for (u32 i = 0; i < exit->count; i++)
        if (!apic_serves(cpu, exit->posted[i].address) ||
            is_broadcast(&cpu->state.apic, &exit->posted[i]))
            return false;
    for (u32 i = 0; i < exit->count; i++)
        cpu_apic_write(cpu, exit->posted[i].address, exit->posted[i].size, exit->posted[i].value);
    return true;
}

/* -- Being there ----------------------------------------------------------------------------------------------- */

void apic_set_base(Cpu *cpu, u64 value) {
    u64 reserved = 0xFF | 3 << 9;
    Apic *apic = &cpu->state.apic;
    if (value & reserved || value >> 32 || PAGE_OF((u32)value) != APIC_BASE)
        raise_error(cpu, VECTOR_GP, 0);
    apic->base = APIC_BASE | BASE_BSP | ((u32)value & BASE_ENABLE);
    if (!(value & BASE_ENABLE)) cpu->state.timer_due = NEVER;
    update(cpu);
    stop_after(cpu, 0);
}

void apic_reset(Cpu *cpu) {
    Apic *apic = &cpu->state.apic;
    *apic = (Apic){0};
    cpu->state.timer_due = NEVER;
    if (cpu->apic_mode == APIC_NONE) return;
    apic->base = APIC_BASE | BASE_BSP | BASE_ENABLE;
    apic->dfr = 0xFFFFFFFF;
    apic->svr = SVR_ENABLE | 0xFF;
    for (u32 i = 0; i < LVT_COUNT; i++) apic->lvt[i] = LVT_MASKED;
    apic->lvt[LVT_LINT0] = EXTINT << 8;
    apic->lvt[LVT_LINT1] = 4 << 8;
}

void apic_hand_over(Cpu *to, const Cpu *from) {
    if (to->apic_mode == APIC_NONE || from->apic_mode == APIC_NONE) return;
    to->state.apic = from->state.apic;
    to->state.timer_due = from->state.timer_due;
    update(to);
    to->apic_rose = false;
}

void cpu_set_apic(Cpu *cpu, uint32_t mode) {
    cpu->apic_mode = mode;
    cpu->apic_rose = false;
}
