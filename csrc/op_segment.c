/*
 * op_segment.c - instructions about selectors and descriptor tables, and far transfers.
 *
 * Most of the unsafe instructions are here: they show or use the machine's own tables whatever the
 * CPL (column `leaks` of isa/table.py). What a load checks is segment.c's, what a transfer does
 * far.c's. Read system.c next.
 */
#include "flags.h"
#include "operand.h"
#include "system.h"
#include "transfer.h"

/* -- Selectors --------------------------------------------------------------------------------- */

/* A 16-bit value to a register of operand size, zero-extended, or to 16 bits of memory. */
static void write_word(Cpu *cpu, const Insn *in, Shape s, u32 value) {
    if (s.form != FORM_REG) s.bits = 16;
    write_rm(cpu, in, s, value & 0xFFFF);
}

static u32 read_word(Cpu *cpu, const Insn *in, Shape s) {
    s.bits = 16;
    return read_rm(cpu, in, s);
}

/* The instruction after a load of SS sees neither interrupts nor debug traps, so that it can load
   ESP undisturbed (SDM vol. 3, 6.8.3). */
static void shadow_stack_load(Cpu *cpu, u32 segment) {
    if (segment != SEG_SS) return;
    cpu->state.interrupt_shadow = 1;
    cpu->state.debug_shadow = 1;
    refresh_mode(cpu);
}

void op_mov_from_sreg(Cpu *cpu, const Insn *in, Shape s) {
    write_word(cpu, in, s, cpu->state.seg[in->reg].selector);
}

void op_mov_to_sreg(Cpu *cpu, const Insn *in, Shape s) {
    load_segment(cpu, in->reg, read_word(cpu, in, s));
    shadow_stack_load(cpu, in->reg);
}

void op_push_sreg(Cpu *cpu, const Insn *in, Shape s) {
    stack_push(cpu, in, s.bits, cpu->state.seg[in->reg].selector);
}

void op_pop_sreg(Cpu *cpu, const Insn *in, Shape s) {
    u32 mask = stack_mask(cpu); /* of the stack that is popped, should SS change */
    u32 esp = cpu->state.gpr[ESP], selector = stack_peek(cpu, in, s.bits, 0);
    load_segment(cpu, in->reg, selector);
    cpu->state.gpr[ESP] = (esp & ~mask) | ((esp + s.bits / 8) & mask);
    shadow_stack_load(cpu, in->reg);
}

/* A far pointer in memory: offset, then selector. */
static u32 load_pointer(Cpu *cpu, const Insn *in, Shape s, u32 *selector) {
    u32 size = s.bits / 8;
    u32 offset = load_part(cpu, in, 0, size);
    *selector = load_part(cpu, in, size, 2);
    return offset;
}

static void load_far(Cpu *cpu, const Insn *in, Shape s, u32 segment) {
    u32 selector, offset = load_pointer(cpu, in, s, &selector);
    load_segment(cpu, segment, selector);
    set_reg(cpu, in->reg, s.bits, offset);
}

void op_lds(Cpu *cpu, const Insn *in, Shape s) {
    load_far(cpu, in, s, SEG_DS);
}

void op_les(Cpu *cpu, const Insn *in, Shape s) {
    load_far(cpu, in, s, SEG_ES);
}

void op_lss(Cpu *cpu, const Insn *in, Shape s) {
    load_far(cpu, in, s, SEG_SS);
}

void op_lfs(Cpu *cpu, const Insn *in, Shape s) {
    load_far(cpu, in, s, SEG_FS);
}

void op_lgs(Cpu *cpu, const Insn *in, Shape s) {
    load_far(cpu, in, s, SEG_GS);
}

/* -- Table registers --------------------------------------------------------------------------- */

/* All 32 bits of the base, whatever the operand size: so does every processor since the 80386,
   though the SDM says otherwise of 16 bits. */
static void store_table(Cpu *cpu, const Insn *in, TableRegister table) {
    u32 at = operand_linear(cpu, in, 6, true);
    probe_store(cpu, at, 6, cpu->state.cpl == 3);
    store(cpu, in, at, 2, table.limit);
    store(cpu, in, at + 2, 4, table.base);
}

void op_sgdt(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    store_table(cpu, in, cpu->state.gdtr);
}

void op_sidt(Cpu *cpu, const Insn *in, UNUSED Shape s) {
    store_table(cpu, in, cpu->state.idtr);
}

/* With a 16-bit operand the base has 24 bits, as the 80286 had. */
static TableRegister load_table(Cpu *cpu, const Insn *in, Shape s) {
    u32 at = operand_linear(cpu, in, 6, false);
    TableRegister table;
    table.limit = load(cpu, in, at, 2);
    table.base = load(cpu, in, at + 2, 4);
    if (s.bits == 16) table.base &= 0xFFFFFF;
    return table;
}

void op_lgdt(Cpu *cpu, const Insn *in, Shape s) {
    cpu->state.gdtr = load_table(cpu, in, s);
}

void op_lidt(Cpu *cpu, const Insn *in, Shape s) {
    cpu->state.idtr = load_table(cpu, in, s);
}

void op_sldt(Cpu *cpu, const Insn *in, Shape s) {
    write_word(cpu, in, s, cpu->state.ldtr.selector);
}

void op_str(Cpu *cpu, const Insn *in, Shape s) {
    write_word(cpu, in, s, cpu->state.tr.selector);
}

/* A descriptor for LLDT or LTR: in the GDT, of the type wanted (or that less 8), present. */
static Descriptor fetch_system(Cpu *cpu, u32 selector, u32 type, u32 other_type) {
    Descriptor d;
    if (selector & SELECTOR_TI) raise_error(cpu, VECTOR_GP, selector & 0xFFFC);
    d = fetch_descriptor(cpu, selector, VECTOR_GP);
    if (!is_system(d) || (system_type(d) != type && system_type(d) != other_type))
        raise_error(cpu, VECTOR_GP, selector & 0xFFFC);
    if (!is_present(d)) raise_error(cpu, VECTOR_NP, selector & 0xFFFC);
    return d;
}

void op_lldt(Cpu *cpu, const Insn *in, Shape s) {
    u32 selector = read_word(cpu, in, s);
    if (is_null(selector)) {
        memset(&cpu->state.ldtr, 0, sizeof cpu->state.ldtr);
        cpu->state.ldtr.selector = selector;
        cpu->state.ldtr.attributes = ATTR_UNUSABLE;
        return;
    }
    cpu->state.ldtr = segment_of(selector, fetch_system(cpu, selector, TYPE_LDT, TYPE_LDT));
}

void op_ltr(Cpu *cpu, const Insn *in, Shape s) {
    u32 selector = read_word(cpu, in, s);
    Descriptor d;
    if (is_null(selector)) raise_error(cpu, VECTOR_GP, 0);
    d = fetch_system(cpu, selector, TYPE_TSS32, TYPE_TSS16);
    d.high |= HIGH_BUSY;
    store_system(cpu, d.linear + 4, 4, d.high);
    cpu->state.tr = segment_of(selector, d);
}

/* -- Looking at descriptors -------------------------------------------------------------------- */

/* May this CPL and RPL see the descriptor at all? */
static bool is_visible(const Cpu *cpu, u32 selector, Descriptor d) {
    u32 dpl = descriptor_dpl(d);
    return is_conforming(d) || (dpl >= cpu->state.cpl && dpl >= (selector & SELECTOR_RPL));
}

static void set_zf(Cpu *cpu, bool value) {
    flags_set_arithmetic(cpu, (flags_arithmetic(cpu) & ~(u32)FLAG_ZF) | (value ? FLAG_ZF : 0));
}

/* Types for which LAR and LSL succeed (SDM vol. 2, tables 3-53 and 3-55): bit by system type. */
enum {
    LSL_TYPES = 1 << TYPE_TSS16 | 1 << TYPE_LDT | 1 << TYPE_TSS16_BUSY | 1 << TYPE_TSS32 |
                1 << TYPE_TSS32_BUSY,
    LAR_TYPES = LSL_TYPES | 1 << TYPE_CALL_GATE16 | 1 << TYPE_TASK_GATE | 1 << TYPE_CALL_GATE32
};

/* Fetch the descriptor that LAR or LSL names; ZF says whether it may be seen. */
static bool look_at(Cpu *cpu, const Insn *in, Shape s, u32 types, Descriptor *d) {
    u32 selector = read_word(cpu, in, s);
    bool found = fetch_descriptor_quietly(cpu, selector, d) && is_visible(cpu, selector, *d) &&
                 (!is_system(*d) || types >> system_type(*d) & 1);
    set_zf(cpu, found);
    return found;
}

/* The limit's bits 16-19 stand in the result: undefined by the SDM, but so it is on silicon. */
void op_lar(Cpu *cpu, const Insn *in, Shape s) {
    Descriptor d;
    if (look_at(cpu, in, s, LAR_TYPES, &d)) set_reg(cpu, in->reg, s.bits, d.high & 0xFFFF00);
}

void op_lsl(Cpu *cpu, const Insn *in, Shape s) {
    Descriptor d;
    if (look_at(cpu, in, s, LSL_TYPES, &d)) set_reg(cpu, in->reg, s.bits, segment_of(0, d).limit);
}

void op_verr(Cpu *cpu, const Insn *in, Shape s) {
    u32 selector = read_word(cpu, in, s);
    Descriptor d;
    set_zf(cpu, fetch_descriptor_quietly(cpu, selector, &d) && is_visible(cpu, selector, d) &&
                    is_readable(d));
}

void op_verw(Cpu *cpu, const Insn *in, Shape s) {
    u32 selector = read_word(cpu, in, s);
    Descriptor d;
    set_zf(cpu, fetch_descriptor_quietly(cpu, selector, &d) && is_visible(cpu, selector, d) &&
                    is_writable_data(d));
}

/* -- Far transfers ----------------------------------------------------------------------------- */

void op_jmp_far(Cpu *cpu, const Insn *in, Shape s) {
    far_jump(cpu, in->immediate2, in->immediate, s.bits);
}

void op_jmp_far_mem(Cpu *cpu, const Insn *in, Shape s) {
    u32 selector, offset = load_pointer(cpu, in, s, &selector);
    far_jump(cpu, selector, offset, s.bits);
}

void op_call_far(Cpu *cpu, const Insn *in, Shape s) {
    far_call(cpu, in->immediate2, in->immediate, s.bits);
}

void op_call_far_mem(Cpu *cpu, const Insn *in, Shape s) {
    u32 selector, offset = load_pointer(cpu, in, s, &selector);
    far_call(cpu, selector, offset, s.bits);
}

void op_retf(Cpu *cpu, UNUSED const Insn *in, Shape s) {
    far_return(cpu, s.bits, 0);
}

void op_retf_imm(Cpu *cpu, const Insn *in, Shape s) {
    far_return(cpu, s.bits, in->immediate);
}

void op_iret(Cpu *cpu, UNUSED const Insn *in, Shape s) {
    interrupt_return(cpu, s.bits);
}
