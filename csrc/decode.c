/*
 * decode.c - one instruction from bytes to Insn, by the tables generated from isa/table.py.
 *
 * The rules are the SDM's (volume 2, chapter 2): prefixes in any order, the last of a group wins;
 * 15 bytes at most; ModRM, SIB, displacement; immediates. What is particular to an instruction is
 * in its row's facts (row_decode), never here. The result names an op (isa_ops.h), which depends on
 * how the memory operand is reached: flat segments and 32-bit addresses get a fast form.
 * Read block.c next.
 */
#include "cpu.h"
#include "isa_decode.h"
#include "isa_ops.h"
#include "operand.h"

enum { LENGTH_MAX = 15 };
enum { MORE_BYTES = -1, DECODED = 0 };

/* A cursor over the bytes; `short_of` is set when they run out. */
typedef struct {
    const u8 *code;
    u32 size, at;
    bool short_of;
} Bytes;

typedef struct {
    bool operand16, address16, lock;
    u8 repeat;   /* F2, F3 or 0 */
    int segment; /* override, or -1 */
} Prefixes;

static u32 take(Bytes *bytes, u32 size) {
    u32 value;
    if (bytes->at + size > bytes->size) {
        bytes->short_of = true;
        return 0;
    }
    value = host_load(bytes->code + bytes->at, size);
    bytes->at += size;
    return value;
}

/* Offset of a register in CpuState.gpr: little end, or AH CH DH BH. */
static u8 register_offset(u32 number, u32 bits) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    if (bits == 8) return (u8)((number & 3) * 4 + (number & 4 ? 2 : 3));
    return (u8)(number * 4 + (bits == 16 ? 2 : 0));
#else
    if (bits == 8) return (u8)((number & 3) * 4 + (number & 4 ? 1 : 0));
    return (u8)(number * 4);
#endif
}

/* Consume prefixes; returns the first byte that is none. */
static u32 take_prefixes(Bytes *bytes, Prefixes *prefixes) {
    for (;;) {
        u32 byte = take(bytes, 1);
        switch (byte) {
        case 0x66: prefixes->operand16 = true; break;
        case 0x67: prefixes->address16 = true; break;
        case 0xF0: prefixes->lock = true; break;
        case 0xF2:
        case 0xF3: prefixes->repeat = (u8)byte; break;
        case 0x26: prefixes->segment = SEG_ES; break;
        case 0x2E: prefixes->segment = SEG_CS; break;
        case 0x36: prefixes->segment = SEG_SS; break;
        case 0x3E: prefixes->segment = SEG_DS; break;
        case 0x64: prefixes->segment = SEG_FS; break;
        case 0x65: prefixes->segment = SEG_GS; break;
        default: return byte;
        }
        if (bytes->short_of || bytes->at >= LENGTH_MAX) return 0;
    }
}

/* 16-bit addressing: the pairs of SDM vol. 2, table 2-1. */
static void memory16(Bytes *bytes, u32 mod, u32 rm, Insn *in, bool *stack) {
    static const u8 bases[8] = {EBX, EBX, EBP, EBP, ESI, EDI, EBP, EBX};
    static const u8 indexes[8] = {ESI, EDI, ESI, EDI, 8, 8, 8, 8};
    if (mod == 0 && rm == 6) {
        in->displacement = take(bytes, 2);
        return;
    }
    in->base = register_offset(bases[rm], 32);
    in->index = (u8)(indexes[rm] * 4);
    *stack = bases[rm] == EBP;
    if (mod == 1) in->displacement = (u32)(i8)take(bytes, 1);
    if (mod == 2) in->displacement = (u32)(i16)take(bytes, 2);
}

static void memory32(Bytes *bytes, u32 mod, u32 rm, Insn *in, bool *stack) {
    u32 base = rm;
    if (rm == ESP) {
        u32 sib = take(bytes, 1);
        u32 index = sib >> 3 & 7;
        base = sib & 7;
        in->scale = (u8)(sib >> 6);
        if (index != ESP) in->index = (u8)(index * 4);
    }
    if (base == EBP && mod == 0) {
        in->displacement = take(bytes, 4);
        return;
    }
    in->base = (u8)(base * 4);
    *stack = base == ESP || base == EBP;
    if (mod == 1) in->displacement = (u32)(i8)take(bytes, 1);
    if (mod == 2) in->displacement = take(bytes, 4);
}

/* Read one immediate of the row into *low (and *high: a far pointer's selector). */
static void take_immediate(Bytes *bytes, u32 kind, const Prefixes *prefixes, u32 *low, u32 *high) {
    u32 full = prefixes->operand16 ? 2 : 4;
    switch (kind) {
    case IMMEDIATE_IB: *low = take(bytes, 1); break;
    case IMMEDIATE_CB: *low = (u32)(i8)take(bytes, 1); break;
    case IMMEDIATE_IW: *low = take(bytes, 2); break;
    case IMMEDIATE_IZ: *low = take(bytes, full); break;
    case IMMEDIATE_CZ: *low = take(bytes, full); break;
    case IMMEDIATE_MO: *low = take(bytes, prefixes->address16 ? 2 : 4); break;
    case IMMEDIATE_CP:
        *low = take(bytes, full);
        *high = take(bytes, 2);
        break;
    default: break;
    }
}

/* The row of the opcode, or -1. ModRM, where the row has it, is peeked at, not consumed. */
static int find_row(Bytes *bytes, u32 byte, const Prefixes *prefixes) {
    u32 map = 0, entry;
    if (byte == 0x0F) {
        map = 256;
        byte = take(bytes, 1);
        if (bytes->short_of) return -1;
    }
    entry = opcode_rows[prefixes->operand16][map + byte];
    if (entry & GROUP_BIT) {
        u32 modrm = take(bytes, 1);
        if (bytes->short_of) return -1;
        bytes->at--;
        entry = opcode_groups[entry & ~(u32)GROUP_BIT][modrm >> 3 & 7];
    }
    return (int)entry - 1;
}

/* x87, MMX and SSE opcodes: #NM while CR0.EM or CR0.TS asks for it, else #UD. */
static int undefined(const u8 *opcode, u32 cr0) {
    bool x87 = (opcode[0] & 0xF8) == 0xD8;
    return x87 && (cr0 & (CR0_EM | CR0_TS)) ? VECTOR_NM : VECTOR_UD;
}

/* Whether the operands are such as the row takes; SDM: "Other exceptions, #UD". */
static bool legal(const RowDecode *facts, const Prefixes *prefixes, u32 modrm) {
    bool memory =
        (facts->flags & DECODE_MODRM) && (modrm < 0xC0) && !(facts->flags & DECODE_REGISTER);
    u32 reg = modrm >> 3 & 7;
    if ((facts->flags & DECODE_MEMORY) && !memory) return false;
    if (prefixes->lock && !((facts->flags & DECODE_LOCK) && memory)) return false;
    if ((facts->flags & DECODE_SREG) && reg > SEG_GS) return false;
    if ((facts->flags & DECODE_SREG_LOAD) && reg == SEG_CS) return false;
    if ((facts->flags & DECODE_CR) && reg != 0 && (reg < 2 || reg > 4)) return false;
    return true;
}

/* ModRM and what follows it. Returns whether the rm operand is in memory. */
static bool take_modrm(Bytes *bytes, const RowDecode *facts, const Prefixes *prefixes, u32 size,
                       Insn *in, bool *stack, u32 *modrm) {
    u32 mod, rm;
    *modrm = take(bytes, 1);
    mod = *modrm >> 6;
    rm = *modrm & 7;
    in->reg = facts->flags & DECODE_NUMBER
                  ? (u8)(*modrm >> 3 & 7)
                  : register_offset(*modrm >> 3 & 7, facts->reg_bits ? facts->reg_bits : size);
    if (mod == 3 || (facts->flags & DECODE_REGISTER)) {
        in->rm = register_offset(rm, facts->rm_bits ? facts->rm_bits : size);
        return false;
    }
    if (prefixes->address16)
        memory16(bytes, mod, rm, in, stack);
    else
        memory32(bytes, mod, rm, in, stack);
    return true;
}

static u32 choose_form(const Insn *in, u32 mode, bool memory) {
    if (!memory) return FORM_REG;
    if (!(mode & MODE_FLAT) || (in->flags & INSN_ADDR16)) return FORM_ANY;
    if (in->segment != SEG_DS && in->segment != SEG_ES && in->segment != SEG_SS)
        return in->base == NO_REGISTER && in->index == NO_REGISTER ? FORM_FIXED : FORM_ANY;
    return in->index == NO_REGISTER ? FORM_BASE : FORM_INDEX;
}

static u8 insn_flags(const RowDecode *facts, const Prefixes *prefixes) {
    u8 flags = 0;
    if (prefixes->address16) flags |= INSN_ADDR16;
    if (prefixes->operand16) flags |= INSN_OPERAND16;
    if (prefixes->lock) flags |= INSN_LOCK;
    if (facts->flags & DECODE_ENDS) flags |= INSN_ENDS;
    if ((facts->flags & DECODE_REPEAT) && prefixes->repeat) {
        flags |= prefixes->repeat == 0xF3 ? INSN_REP : INSN_REPNE;
        flags |= INSN_ENDS;
    }
    return flags;
}

/* Relative targets become EIPs; immediates are cut to the operand size. */
static void finish_immediates(const RowDecode *facts, const Prefixes *prefixes, u32 eip, Insn *in) {
    if (facts->immediate == IMMEDIATE_CB || facts->immediate == IMMEDIATE_CZ) {
        in->immediate += eip + in->length;
        if (prefixes->operand16) in->immediate &= 0xFFFF;
    }
    if (facts->flags & DECODE_SIGNED)
        in->immediate = (u32)(i8)in->immediate & (prefixes->operand16 ? 0xFFFF : 0xFFFFFFFFu);
    if (facts->flags & DECODE_ONE) in->immediate = 1;
    if (facts->immediate2 == IMMEDIATE_NONE && facts->immediate != IMMEDIATE_CP)
        in->immediate2 = (eip + in->length) & (prefixes->operand16 ? 0xFFFF : 0xFFFFFFFFu);
    if (facts->immediate == IMMEDIATE_MO) in->displacement = in->immediate;
}

int decode(const u8 *code, u32 size, u32 eip, u32 mode, u32 cr0, Insn *in) {
    Bytes bytes = {code, size < LENGTH_MAX ? size : LENGTH_MAX, 0, false};
    Prefixes prefixes = {.segment = -1};
    u32 byte = take_prefixes(&bytes, &prefixes), modrm = 0xC0, operand, start;
    bool memory = false, stack = false;
    int row;
    if (bytes.short_of) return size < LENGTH_MAX ? MORE_BYTES : VECTOR_GP;
    if (bytes.at >= LENGTH_MAX && byte == 0) return VECTOR_GP;
    start = bytes.at - 1;
    row = find_row(&bytes, byte, &prefixes);
    if (bytes.short_of) return size < LENGTH_MAX ? MORE_BYTES : VECTOR_GP;
    if (row < 0) return undefined(code + start, cr0);

    const RowDecode *facts = &row_decode[row];
    operand = prefixes.operand16 ? 16 : 32;
    *in = (Insn){.row = (u16)row, .base = NO_REGISTER, .index = NO_REGISTER};
    in->flags = insn_flags(facts, &prefixes);
    in->rm = register_offset(0, facts->rm_bits ? facts->rm_bits : operand);
    in->reg = facts->flags & DECODE_NUMBER
                  ? facts->number
                  : register_offset(0, facts->reg_bits ? facts->reg_bits : operand);
    if (facts->flags & DECODE_CC) in->cc = code[bytes.at - 1] & 15;
    if (facts->flags & DECODE_OPCODE_REG)
        in->rm = register_offset(code[bytes.at - 1] & 7, facts->rm_bits ? facts->rm_bits : operand);
    if (facts->flags & DECODE_MODRM)
        memory = take_modrm(&bytes, facts, &prefixes, operand, in, &stack, &modrm);
    take_immediate(&bytes, facts->immediate, &prefixes, &in->immediate, &in->immediate2);
    take_immediate(&bytes, facts->immediate2, &prefixes, &in->immediate2, &in->immediate2);
    if (bytes.short_of) return size < LENGTH_MAX ? MORE_BYTES : VECTOR_GP;
    if (!legal(facts, &prefixes, modrm)) return VECTOR_UD;

    in->length = (u8)bytes.at;
    in->segment = (u8)(prefixes.segment >= 0 ? prefixes.segment : stack ? SEG_SS : SEG_DS);
    finish_immediates(facts, &prefixes, eip, in);
    memory = memory || facts->immediate == IMMEDIATE_MO;
    in->form = (u8)choose_form(in, mode, memory);
    in->op = row_ops[row][prefixes.operand16][in->form][0];
    if (in->op == OP_JCC) in->op = (u16)(OP_JCC + in->cc);
    return DECODED;
}

int core_decode(const uint8_t *code, uint32_t size, uint32_t *length) {
    Insn in;
    int result = decode(code, size, 0, MODE_FLAT, 0, &in);
    if (result == MORE_BYTES) return -1 - VECTOR_GP;
    if (result != DECODED) return -1 - result;
    *length = in.length;
    return in.row;
}
