/*
 * system.c - flags, control and debug registers, software interrupts, identification.
 *
 * Where a value is privileged the row's privilege column has been checked before these bodies run.
 * After a change of what decoding, paging or stepping depend on, a body calls refresh_mode or
 * tlb_flush; the row ends its block, so the next instruction is looked up anew. Read io.c next.
 */
#include "system.h"
#include "flags.h"
#include "guest.h"
#include "isa_cost.h"
#include "operand.h"
#include "transfer.h"

/* -- Flags ------------------------------------------------------------------------------------- */

enum { FLAGS_IN_AH = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF };

void op_lahf(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    u32 ah = (flags_get(cpu) & FLAGS_IN_AH) | FLAG_ONE;
    cpu->state.gpr[EAX] = (cpu->state.gpr[EAX] & 0xFFFF00FF) | ah << 8;
}

void op_sahf(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    flags_set_arithmetic(cpu, (flags_arithmetic(cpu) & FLAG_OF) |
                                  (cpu->state.gpr[EAX] >> 8 & FLAGS_IN_AH));
}

void op_cld(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    cpu->state.eflags &= ~(u32)FLAG_DF;
}

void op_std(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    cpu->state.eflags |= FLAG_DF;
}

void op_clc(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    flags_change(cpu, FLAG_CF, 0);
}

void op_stc(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    flags_change(cpu, FLAG_CF, FLAG_CF);
}

void op_cmc(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    flags_change(cpu, FLAG_CF, flag_cf(cpu) ? 0 : FLAG_CF);
}

void op_cli(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    cpu->state.eflags &= ~(u32)FLAG_IF;
}

/* The instruction after STI still runs with interrupts held off, if they were off before. */
void op_sti(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    if (cpu->state.eflags & FLAG_IF) return;
    cpu->state.eflags |= FLAG_IF;
    cpu->state.interrupt_shadow = 1;
    refresh_mode(cpu);
}

void op_pushf(Cpu *cpu, const Insn *in, Shape s) {
    stack_push(cpu, in, s.bits, flags_get(cpu) & ~(u32)(FLAG_VM | FLAG_RF));
}

/* IF and IOPL change only with the privilege for it, and silently stay otherwise: the classic
   unsafe instruction. RF is always cleared. */
void op_popf(Cpu *cpu, const Insn *in, Shape s) {
    u32 value = stack_pop(cpu, in, s.bits);
    load_flags(cpu, loadable_flags(cpu, s.bits), value & ~(u32)FLAG_RF);
}

/* -- Control registers ------------------------------------------------------------------------- */

/* What stops a MOV from or to CRn before anything else (EXIT_INTERCEPT). */
static void check_intercept(Cpu *cpu, const Insn *in, u32 intercepted, u32 value) {
    if (likely(!(intercepted >> in->reg & 1))) return;
    cpu->exit.operand = in->reg;
    cpu->exit.value = value;
    leave(cpu, EXIT_INTERCEPT);
}

static const u32 cr0_known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM |
                             CR0_NW | CR0_CD | CR0_PG;

static void flush(Cpu *cpu) {
    cpu->state.cycle += COST_TLB_FLUSH;
    tlb_flush(cpu);
}

/* In guest mode the host's bits stay as they are; to change one is an exit. */
static u32 with_hosts(Cpu *cpu, u32 number, u32 value) {
    const ControlBlock *control = cpu->control;
    u32 mask, now = number == 0 ? cpu->state.cr0 : cpu->state.cr4;
    u32 visible = number == 0 ? visible_cr0(cpu) : visible_cr4(cpu);
    if (likely(control == NULL)) return value;
    mask = number == 0 ? control->cr0_mask : control->cr4_mask;
    if ((value ^ visible) & mask) {
        cpu->exit.operand = number;
        cpu->exit.value = value;
        leave(cpu, EXIT_INTERCEPT);
    }
    return (value & ~mask) | (now & mask);
}

static void set_cr0(Cpu *cpu, u32 value) {
    u32 changed;
    value = with_hosts(cpu, 0, (value & cr0_known) | CR0_ET);
    if ((value & CR0_PG) && !(value & CR0_PE)) raise_error(cpu, VECTOR_GP, 0);
    if ((value & CR0_NW) && !(value & CR0_CD)) raise_error(cpu, VECTOR_GP, 0);
    if (!(value & CR0_PE)) leave_unsupported(cpu, UNSUPPORTED_REAL_MODE);
    changed = cpu->state.cr0 ^ value;
    cpu->state.cr0 = value;
    if (changed & (CR0_PG | CR0_WP)) flush(cpu);
    refresh_mode(cpu);
}

static void set_cr4(Cpu *cpu, u32 value) {
    u32 changed;
    if (value & ~(u32)(CR4_TSD | CR4_DE | CR4_PSE)) raise_error(cpu, VECTOR_GP, 0);
    value = with_hosts(cpu, 4, value);
    changed = cpu->state.cr4 ^ value;
    cpu->state.cr4 = value;
    if (changed & CR4_PSE) flush(cpu);
    refresh_mode(cpu);
}

void op_mov_from_cr(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    u32 value = 0;
    check_intercept(cpu, in, cpu->state.intercepts.cr_reads, in->rm / 4);
    switch (in->reg) {
    case 0: value = visible_cr0(cpu); break;
    case 2: value = cpu->state.cr2; break;
    case 3: value = cpu->state.cr3; break;
    case 4: value = visible_cr4(cpu); break;
    default: raise_fault(cpu, VECTOR_UD);
    }
    set_reg(cpu, in->rm, 32, value);
}

void op_mov_to_cr(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    u32 value = get_reg(cpu, in->rm, 32);
    check_intercept(cpu, in, cpu->state.intercepts.cr_writes, value);
    switch (in->reg) {
    case 0: set_cr0(cpu, value); break;
    case 2: cpu->state.cr2 = value; break;
    case 3:
        cpu->state.cr3 = value;
        flush(cpu);
        break;
    case 4: set_cr4(cpu, value); break;
    default: raise_fault(cpu, VECTOR_UD);
    }
}

void op_smsw(Cpu *cpu, const Insn *in, Shape s) {
    if (s.form != FORM_REG) s.bits = 16;
    write_rm(cpu, in, s, visible_cr0(cpu));
}

/* PE, MP, EM and TS only; PE cannot be cleared. */
void op_lmsw(Cpu *cpu, const Insn *in, Shape s) {
    u32 value;
    s.bits = 16;
    value = read_rm(cpu, in, s);
    set_cr0(cpu, (visible_cr0(cpu) & ~(u32)(CR0_MP | CR0_EM | CR0_TS)) | (value & 15));
}

void op_clts(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    set_cr0(cpu, visible_cr0(cpu) & ~(u32)CR0_TS);
}

/* The operand is an address, not an access: no limit is checked. */
void op_invlpg(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    tlb_drop_page(cpu, cpu->state.seg[in->segment].base + effective_address(cpu, in));
}

/* There are no caches. */
void op_wbinvd(UNUSED Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
}

void op_hlt(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    stop_after(cpu, EXIT_HALT);
}

/* An FPU that is not there has no exceptions to wait for. */
void op_wait(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    if ((cpu->state.cr0 & CR0_MP) && (cpu->state.cr0 & CR0_TS)) raise_fault(cpu, VECTOR_NM);
}

/* -- Debug registers --------------------------------------------------------------------------- */

enum {
    DR6_WRITABLE = 0xE00F, /* BT BS BD, B3-B0; the rest is fixed */
    DR6_BD = 1 << 13,
    DR7_ALWAYS = 0x400,
    DR7_GD = 1 << 13
};
static const u32 dr6_fixed = 0xFFFF0FF0, dr7_writable = 0xFFFF23FF;

/* DR4 and DR5 stand for DR6 and DR7, unless CR4.DE makes them undefined. General detect (DR7.GD)
   is a #DB that comes before the move. */
static u32 debug_register(Cpu *cpu, const Insn *in) {
    u32 number = in->reg;
    if (number == 4 || number == 5) {
        if (cpu->state.cr4 & CR4_DE) raise_fault(cpu, VECTOR_UD);
        number += 2;
    }
    if (cpu->state.dr[7] & DR7_GD) {
        cpu->state.dr[6] |= DR6_BD;
        raise_fault(cpu, VECTOR_DB);
    }
    return number;
}

void op_mov_from_dr(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    u32 number = debug_register(cpu, in);
    set_reg(cpu, in->rm, 32, cpu->state.dr[number]);
}

void op_mov_to_dr(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    u32 number = debug_register(cpu, in), value = get_reg(cpu, in->rm, 32);
    bool watched = debug_watches_data(cpu);
    if (number == 6) value = (value & DR6_WRITABLE) | dr6_fixed;
    if (number == 7) value = (value & dr7_writable) | DR7_ALWAYS;
    cpu->state.dr[number] = value;
    /* Pages with data breakpoints have no TLB entries: those made before must go. */
    if (watched || debug_watches_data(cpu)) tlb_flush(cpu);
    refresh_mode(cpu);
}

/* -- Software interrupts ----------------------------------------------------------------------- */

void op_int3(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    software_interrupt(cpu, VECTOR_BP);
}

void op_int(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    software_interrupt(cpu, in->immediate & 0xFF);
}

void op_into(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    if (flag_of(cpu)) software_interrupt(cpu, VECTOR_OF);
}

void op_bound(Cpu *cpu, const Insn *in, Shape s) {
    u32 size = s.bits / 8;
    i64 index = sign_extend(get_reg(cpu, in->reg, s.bits), s.bits);
    i64 lower = sign_extend(load_part(cpu, in, 0, size), s.bits);
    i64 upper = sign_extend(load_part(cpu, in, size, size), s.bits);
    if (index < lower || index > upper) raise_fault(cpu, VECTOR_BR);
}

void op_ud2(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    raise_fault(cpu, VECTOR_UD);
}

/* -- Identification and model-specific registers ----------------------------------------------- */

_Static_assert((FEATURE_DE | FEATURE_PSE | FEATURE_TSC | FEATURE_MSR | FEATURE_CX8 | FEATURE_APIC |
                FEATURE_CMOV) == CPU_FEATURES,
               "CPUID names what there is");

/* A leaf beyond the highest reads as the highest (SDM vol. 2, CPUID). */
void op_cpuid(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    u32 *gpr = cpu->state.gpr;
    if (gpr[EAX] == 0) {
        gpr[EAX] = 1;
        gpr[EBX] = cpu->vendor[0];
        gpr[EDX] = cpu->vendor[1];
        gpr[ECX] = cpu->vendor[2];
    } else {
        gpr[EAX] = CPU_SIGNATURE;
        gpr[EBX] = gpr[ECX] = 0; /* the initial APIC id is 0 too */
        gpr[EDX] = CPU_FEATURES & ~(apic_enabled(cpu) ? 0u : FEATURE_APIC);
    }
}

enum { MSR_TSC = 0x10 };

/* Guest time, not machine time: it is the same under every technique. */
static u64 time_stamp(const Cpu *cpu) {
    return tick_now(cpu) + cpu->state.tsc_offset;
}

static void set_edx_eax(Cpu *cpu, u64 value) {
    cpu->state.gpr[EAX] = (u32)value;
    cpu->state.gpr[EDX] = (u32)(value >> 32);
}

void op_rdtsc(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    if ((cpu->state.cr4 & CR4_TSD) && cpu->state.cpl != 0) raise_error(cpu, VECTOR_GP, 0);
    set_edx_eax(cpu, time_stamp(cpu));
}

/* In guest mode both registers may be the host's to answer for. */
static bool exits(const Cpu *cpu, u32 msr, bool write) {
    const ControlBlock *control = cpu->control;
    if (likely(control == NULL)) return false;
    return msr == MSR_APIC_BASE || (write ? control->tsc_writes : control->tsc_reads);
}

static void check_msr(Cpu *cpu, u32 msr, bool write) {
    if (msr != MSR_TSC && !(msr == MSR_APIC_BASE && cpu->apic_mode != APIC_NONE))
        raise_error(cpu, VECTOR_GP, 0);
    if (exits(cpu, msr, write)) leave(cpu, EXIT_INTERCEPT);
}

void op_rdmsr(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    u32 msr = cpu->state.gpr[ECX];
    check_msr(cpu, msr, false);
    set_edx_eax(cpu, msr == MSR_TSC ? time_stamp(cpu) : cpu->state.apic.base);
}

void op_wrmsr(Cpu *cpu, UNUSED const Insn *in, UNUSED Shape s) {
    u64 value = (u64)cpu->state.gpr[EDX] << 32 | cpu->state.gpr[EAX];
    u32 msr = cpu->state.gpr[ECX];
    check_msr(cpu, msr, true);
    if (msr == MSR_TSC)
        cpu->state.tsc_offset = value - tick_now(cpu);
    else
        apic_set_base(cpu, value);
}
