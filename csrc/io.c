/*
 * io.c - ports: IN, OUT, INS, OUTS.
 *
 * A port access leaves for Python and is answered through the replay queue: cpu_complete appends to
 * state.replay, the next cpu_run executes the instruction again, and this time port_read finds its
 * answer there. So nothing of an instruction in progress lives outside CpuState, and all that can
 * fault (permission, the memory operand) comes before the device sees anything.
 *
 * A repeated INS or OUTS moves up to a page at once where its memory is plain: one exit of
 * exit.count elements. Its answer is the number of elements done, marked with BULK; INS data have
 * by then been written to the page that exit.address names. Everything else goes element by
 * element. Read event.c next.
 */
#include "guest.h"
#include "isa_cost.h"
#include "ops_string.h"
#include "system.h"
#include "transfer.h"

#define BULK ((u64)1 << 63)

enum { TSS_BITMAP_BASE = 102 };

/* SDM vol. 1, 19.5: by IOPL, else by the bitmap of a 32-bit TSS; #GP(0). */
static void check_port(Cpu *cpu, u32 port, u32 size) {
    const Segment *tss = &cpu->state.tr;
    u32 at, bits;
    if (likely(cpu->state.cpl <= (cpu->state.eflags & FLAG_IOPL) >> 12)) return;
    if ((tss->attributes & ATTR_UNUSABLE) || (tss->attributes & ATTR_TYPE) != TYPE_TSS32_BUSY ||
        tss->limit < TSS_BITMAP_BASE + 1)
        raise_error(cpu, VECTOR_GP, 0);
    at = load_tss(cpu, TSS_BITMAP_BASE, 2) + port / 8;
    /* Two bytes are read always, so the bitmap ends with a byte of ones. */
    if (at + 1 > tss->limit) raise_error(cpu, VECTOR_GP, 0);
    bits = load_tss(cpu, at, 2) >> (port & 7);
    if (bits & ((1u << size) - 1)) raise_error(cpu, VECTOR_GP, 0);
}

/* The next answer of the queue, if there is one. */
static bool take_answer(Cpu *cpu, u64 *answer) {
    if (cpu->state.replay_next >= cpu->state.replay_count) return false;
    *answer = cpu->state.replay[cpu->state.replay_next++];
    cpu->state.cycle += COST_PORT_ACCESS;
    return true;
}

static void fill_exit(Cpu *cpu, const Insn *in, u32 port, u32 size, u32 count, u32 value) {
    ExitRecord *exit = &cpu->exit;
    exit->row = in->row;
    exit->length = in->length;
    exit->port = port;
    exit->size = size;
    exit->count = count;
    exit->value = value;
    exit->linear = exit->address = 0;
}

static u64 port_read(Cpu *cpu, const Insn *in, u32 port, u32 size) {
    u64 answer;
    if (is_port_empty(cpu, port)) return ~(u64)0;
    if (!take_answer(cpu, &answer)) {
        fill_exit(cpu, in, port, size, 1, 0);
        leave(cpu, EXIT_PORT_READ);
    }
    debug_note_port(cpu, port, size);
    return answer;
}

/* Returns the answer: BULK and a count, after OUTS of many elements. */
static u64 port_write(Cpu *cpu, const Insn *in, u32 port, u32 size, u32 value) {
    u64 answer;
    if (is_port_empty(cpu, port)) return 0;
    if (!take_answer(cpu, &answer)) {
        fill_exit(cpu, in, port, size, 1, value & size_mask(size * 8));
        leave(cpu, EXIT_PORT_WRITE);
    }
    debug_note_port(cpu, port, size);
    return answer;
}

static void input(Cpu *cpu, const Insn *in, Shape s, u32 port) {
    check_port(cpu, port, s.bits / 8);
    set_gpr(cpu, EAX, s.bits, (u32)port_read(cpu, in, port, s.bits / 8));
}

static void output(Cpu *cpu, const Insn *in, Shape s, u32 port) {
    check_port(cpu, port, s.bits / 8);
    port_write(cpu, in, port, s.bits / 8, cpu->state.gpr[EAX]);
}

void op_in_imm(Cpu *cpu, const Insn *in, Shape s) {
    input(cpu, in, s, in->immediate & 0xFF);
}

void op_in_dx(Cpu *cpu, const Insn *in, Shape s) {
    input(cpu, in, s, get_gpr(cpu, EDX, 16));
}

void op_out_imm(Cpu *cpu, const Insn *in, Shape s) {
    output(cpu, in, s, in->immediate & 0xFF);
}

void op_out_dx(Cpu *cpu, const Insn *in, Shape s) {
    output(cpu, in, s, get_gpr(cpu, EDX, 16));
}

/* -- Strings ----------------------------------------------------------------------------------- */

/* A pending answer to a bulk exit: how many elements it moved; else 0. */
static u32 bulk_answer(Cpu *cpu) {
    u64 answer;
    if (cpu->state.replay_next >= cpu->state.replay_count) return 0;
    answer = cpu->state.replay[cpu->state.replay_next];
    if (!(answer & BULK)) return 0;
    cpu->state.replay_next++;
    cpu->state.cycle += COST_PORT_ACCESS * (answer & ~BULK);
    return (u32)answer;
}

/* Leave for `count` elements between a port and the page at `linear`. */
static _Noreturn void leave_bulk(Cpu *cpu, const Insn *in, u32 reason, u32 count, u32 size,
                                 u32 linear) {
    u32 access = cpu->state.cpl == 3 ? ACCESS_USER : 0, error;
    fill_exit(cpu, in, get_gpr(cpu, EDX, 16), size, count, 0);
    cpu->exit.linear = linear;
    cpu->exit.address = (u32)translate_quietly(cpu, linear, access, &error);
    leave(cpu, reason);
}

/* INS: `most` elements are wanted; returns how many were moved. */
static u32 step_ins(Cpu *cpu, const Insn *in, u32 size, u32 most) {
    u32 port = get_gpr(cpu, EDX, 16), count = bulk_answer(cpu);
    u32 linear, room;
    if (count == 0) {
        linear = destination_linear(cpu, in, size, true);
        room = bulk_room(cpu, in, SEG_ES, EDI, size, most);
        if (room > 1 && cpu->state.replay_next == cpu->state.replay_count &&
            !is_port_empty(cpu, port) && bulk_pointer(cpu, linear, true) != NULL)
            leave_bulk(cpu, in, EXIT_PORT_READ, room, size, linear);
        /* The device must not see a read whose value cannot be stored. */
        probe_store(cpu, linear, size, cpu->state.cpl == 3);
        store(cpu, in, linear, size, (u32)port_read(cpu, in, port, size));
        count = 1;
    } else {
        debug_note_port(cpu, port, size);
    }
    string_advance(cpu, in, EDI, size, count);
    return count;
}

static u32 step_outs(Cpu *cpu, const Insn *in, u32 size, u32 most) {
    u32 port = get_gpr(cpu, EDX, 16), count = bulk_answer(cpu);
    u32 linear, room;
    const u8 *from;
    if (count == 0) {
        linear = source_linear(cpu, in, size);
        room = bulk_room(cpu, in, in->segment, ESI, size, most);
        from = room > 1 && cpu->state.replay_next == cpu->state.replay_count &&
                       !is_port_empty(cpu, port)
                   ? bulk_pointer(cpu, linear, false)
                   : NULL;
        if (from != NULL) {
            memcpy(cpu->exit.data, from, (size_t)room * size);
            leave_bulk(cpu, in, EXIT_PORT_WRITE, room, size, linear);
        }
        port_write(cpu, in, port, size, load(cpu, in, linear, size));
        count = 1;
    } else {
        debug_note_port(cpu, port, size);
    }
    string_advance(cpu, in, ESI, size, count);
    return count;
}

/* One piece of a repeat an execution: the queue holds the answers of one exit. */
static void repeat_port(Cpu *cpu, const Insn *in, u32 size, RepeatStep step) {
    u32 bits = address_bits(in), count = get_gpr(cpu, ECX, bits), done;
    i64 budget = ticks_left(cpu) + 1;
    if (count == 0) {
        end_repeat(cpu, false, true);
        return;
    }
    done = step(cpu, in, size, (i64)count < budget ? count : budget > 0 ? (u32)budget : 1);
    set_gpr(cpu, ECX, bits, count - done);
    retire_iterations(cpu, done);
    cpu->state.cycle += (u64)done * COST_ITERATION;
    end_repeat(cpu, true, count == done);
}

void op_ins(Cpu *cpu, const Insn *in, Shape s) {
    u32 size = s.bits / 8;
    check_port(cpu, get_gpr(cpu, EDX, 16), size);
    if (is_repeated(in))
        repeat_port(cpu, in, size, step_ins);
    else
        step_ins(cpu, in, size, 1);
}

void op_outs(Cpu *cpu, const Insn *in, Shape s) {
    u32 size = s.bits / 8;
    check_port(cpu, get_gpr(cpu, EDX, 16), size);
    if (is_repeated(in))
        repeat_port(cpu, in, size, step_outs);
    else
        step_outs(cpu, in, size, 1);
}

u64 io_answer(const Cpu *cpu, u64 value) {
    bool many = cpu->exit.reason == EXIT_PORT_WRITE && cpu->exit.count > 1;
    return many ? BULK | cpu->exit.count : value & ~BULK;
}

void io_complete_bytes(Cpu *cpu, const u8 *data, u32 size) {
    u32 count = cpu->exit.size ? size / cpu->exit.size : 0;
    if (count > cpu->exit.count) count = cpu->exit.count;
    if (count == 0 || cpu->state.replay_count >= REPLAY_MAX) return;
    machine_write(cpu->machine, cpu->exit.address, data, count * cpu->exit.size);
    cpu->state.replay[cpu->state.replay_count++] = BULK | count;
}
