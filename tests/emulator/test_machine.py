"""The machine as a whole: programs run, stop for a reason, and run the same every time."""

from __future__ import annotations

import json
import os
import threading
from datetime import datetime
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import LoadError, Machine, MachineError, Result
from emulator.result import Stop
from isa import Program, assemble

#: Interrupt gates for the lines of the first controller at vectors 0x20 to 0x27, all to `handler`;
#: needs a GDT, because the one the loader speaks of is not there.
SYSTEM = """
org 0x100000
    lgdt [gdt_pointer]
    mov eax, 0x10
    mov ss, ax
    mov ds, ax
    mov es, ax
    mov esp, 0x90000
    mov ecx, 8
    mov edi, idt + 0x20 * 8
gate:
    mov eax, handler
    mov [edi], ax
    mov word [edi + 2], 8
    mov word [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    add edi, 8
    loop gate
    lidt [idt_pointer]
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xee            ; timer and COM1
    out 0x21, al
    jmp main
align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer: dw 23
    dd gdt
idt_pointer: dw 0x7ff
    dd idt
idt equ 0x80000
"""

TIMER = (
    SYSTEM
    + """
main:
    mov al, 0x34
    out 0x43, al
    mov al, 1000 & 0xff
    out 0x40, al
    mov al, 1000 >> 8
    out 0x40, al
    sti
.wait:
    %s
    cmp dword [count], 50
    jb .wait
    mov al, 7
    out 0xf4, al
handler:
    push eax
    push edx
    inc dword [count]
    rdtsc
    mov [stamp], eax
    mov al, '.'
    mov edx, 0x3f8
    out dx, al
    mov al, 0x20
    out 0x20, al
    pop edx
    pop eax
    iret
count: dd 0
stamp: dd 0
"""
)

#: Prints what it receives by interrupt, up to and with a "q".
ECHO = (
    SYSTEM
    + """
main:
    mov edx, 0x3f8 + 4
    mov al, 8
    out dx, al
    mov edx, 0x3f8 + 1
    mov al, 1
    out dx, al
    sti
.wait:
    hlt
    jmp .wait
handler:
    mov edx, 0x3f8
    in al, dx
    out dx, al
    cmp al, 'q'
    je .quit
    mov al, 0x20
    out 0x20, al
    iret
.quit:
    mov al, 0
    out 0xf4, al
"""
)


@cache
def program(source: str) -> Program:
    return assemble(source)


def run(source: str, max_ticks: int | None = 10_000_000, **keywords) -> Result:
    machine = Machine(**{"ram": "4M"} | keywords)
    machine.load(program(source))
    return machine.run(max_ticks)


def test_the_five_lines(capsys):
    exec(  # the design's own words
        "from isa import assemble\n"
        "from emulator import Machine\n"
        'machine = Machine(ram="4M")\n'
        'machine.load(assemble("mov eax, 6\\nimul eax, 7\\nhlt"))\n'
        "print(machine.run().registers.eax)      # 42\n",
        {},
    )
    assert capsys.readouterr().out == "42\n"


def test_entry_state():
    result = run("hlt")
    registers = result.registers
    assert registers.eip == 0x100001
    assert (registers.cs, registers.ds, registers.ss) == (8, 0x10, 0x10)
    assert registers.eflags == 2
    assert registers.esp == 0x7C00
    assert registers.cr0 & 0x80000001 == 1
    assert (result.stop, result.status, result.ticks, result.ok) == (Stop.HALTED, 0, 1, True)


def test_hello_through_the_uart():
    source = """
        mov esi, text
        mov edx, 0x3f8
    next: lodsb
        test al, al
        jz end
        out dx, al
        jmp next
    end: hlt
    text: db "hello", 10, 0
    """
    result = run(source)
    assert result.output == b"hello\n"
    assert result.exits["port_write"] == 6
    sink: list[bytes] = []
    assert run(source, console_out=sink.append).output == b""
    assert b"".join(sink) == b"hello\n"


def test_output_into_a_file(tmp_path):
    with (tmp_path / "out").open("wb") as stream:
        run("mov edx, 0x3f8\nmov al, 'x'\nout dx, al\nhlt", console_out=stream)
        assert (tmp_path / "out").read_bytes() == b"x"  # unbuffered


def test_string_io_reaches_the_device_element_by_element():
    result = run("mov esi, text\nmov edx, 0x3f8\nmov ecx, 5\nrep outsb\nhlt\ntext: db 'hello'")
    assert result.output == b"hello"
    source = "mov edi, 0x2000\nmov edx, 0xe9\nmov ecx, 3\nrep insb\nmov eax, [0x2000]\nhlt"
    assert run(source).registers.eax == 0xE9E9E9
    assert run(source.replace("0xe9", "0x1234").replace("insb", "insd")).registers.edi == 0x200C


@pytest.mark.parametrize("value", [0, 1, 42, 63])
def test_the_debug_exit_gives_the_status(value):
    result = run(f"mov al, {value}\nout 0xf4, al\nmov al, 99")
    assert (result.stop, result.status) == (Stop.POWERED_OFF, value)
    assert result.registers.eip == 0x100004  # the OUT has retired, nothing after it
    assert result.ticks == 2


def test_a_status_that_is_ours_is_not_the_guests_to_give():
    assert run("mov al, 200\nout 0xf4, al").status == 63


def test_the_debug_console():
    sink: list[bytes] = []
    source = "in al, 0xe9\ncmp al, 0xe9\njne .end\nmov al, 'd'\nout 0xe9, al\n.end: hlt"
    assert run(source, debug_out=sink.append).output == b""
    assert sink == [b"d"]


def test_nobody_at_a_port():
    result = run("in al, 0x99\nmov bl, al\nmov edx, 0x9999\nin eax, dx\nout dx, eax\nhlt")
    assert (result.registers.ebx, result.registers.eax) == (0xFF, 0xFFFFFFFF)


def test_ticks_run_out_exactly_and_the_run_may_go_on():
    machine = Machine(ram="4M")
    machine.load(program("mov ecx, 1000\nl: loop l\nhlt"))
    for limit in (1, 2, 77, 500):
        result = machine.run(limit)
        assert (result.stop, result.ticks, result.status) == (Stop.OUT_OF_TICKS, limit, 68)
    assert machine.run().ticks == 1002


def test_the_end_is_the_end():
    machine = Machine(ram="4M")
    machine.load(program("hlt\nmov eax, 1\nhlt"))
    machine.run()
    assert machine.run().registers.eax == 0


def test_a_triple_fault_tells_its_chain():
    result = run("org 0x100000\nstart: nop\nint 0x40")
    assert (result.stop, result.status) == (Stop.TRIPLE_FAULT, 67)
    assert result.reason.startswith("triple fault: #GP (13, general protection) at eip 0x00100001")
    assert "error code 0x0202, bytes cd 40" in result.reason
    assert result.details[0].startswith("in start+0x1 ")
    assert result.details[0].endswith(":3")
    assert result.details[-1] == "then shutdown"
    assert [fault.vector for fault in result.faults] == [13, 13, 8] or len(result.faults) == 3


def test_what_is_outside_the_slice_stops_with_one_line():
    result = run("mov eax, cr0\nand eax, ~1\nmov cr0, eax")
    assert (result.stop, result.status) == (Stop.UNSUPPORTED, 69)
    assert "leaving protected mode" in result.reason


def test_a_halt_that_nothing_can_end():
    for source in ("sti\nhlt", SYSTEM + "main: sti\nhlt\nhandler: iret"):
        result = run(source, max_ticks=None)
        assert (result.stop, result.status) == (Stop.IDLE, 72)


@pytest.mark.parametrize("body", ["hlt", "nop", "call handler_free"])
def test_timer_interrupts_come_at_the_same_tick_in_every_run(body):
    source = (TIMER % body) + "handler_free: ret\n"
    first, second = run(source), run(source)
    assert first == second
    assert first.status == 7
    assert first.output == b"." * 50
    assert first.exits["interrupt"] == 50
    period = 1000 * 100_000_000 / 1_193_182
    assert 49 * period < first.ticks < 51 * period


def test_halted_time_costs_nothing():
    busy, idle = run(TIMER % "nop"), run(TIMER % "hlt")
    assert abs(busy.ticks - idle.ticks) < 1000


def test_ticks_run_out_while_halted():
    machine = Machine(ram="4M")
    machine.load(program(TIMER % "hlt"))
    assert machine.run(1_000_000).ticks == 1_000_000
    assert machine.halted
    assert machine.run().ticks == run(TIMER % "hlt").ticks


def test_input_known_beforehand_arrives_at_line_rate():
    result = run(ECHO, console_in=b"hello q and more")
    assert (result.output, result.status) == (b"hello q", 0)
    assert 6 * 8680 <= result.ticks < 8 * 8680
    assert run(ECHO, console_in=b"hello q and more") == result


def test_input_from_a_file_is_the_same(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"hello q")
    with path.open("rb") as stream:
        assert run(ECHO, console_in=stream) == run(ECHO, console_in=b"hello q")


def test_no_more_input_leaves_nothing_to_wait_for():
    result = run(ECHO, console_in=b"abc")
    assert (result.output, result.stop) == (b"abc", Stop.IDLE)


def test_live_input_wakes_the_guest():
    reading, writing = os.pipe()
    sender = threading.Timer(0.5, os.write, (writing, b"hiq"))
    sender.start()
    try:
        machine = Machine(ram="4M", console_in=reading)
        machine.load(program(ECHO))
        result = machine.run()
    finally:
        sender.join()
        os.close(reading)
        os.close(writing)
    assert (result.output, result.status) == (b"hiq", 0)
    assert [entry.data for entry in machine.board.inputs.log] == [b"hiq"]
    assert machine.board.inputs.log[0].tick > 10_000_000  # not before it was sent


def test_a_request_to_stop_is_heard():
    machine = Machine(ram="4M")
    machine.load(program("l: jmp l"))
    timer = threading.Timer(0.2, machine.request_exit)
    timer.start()
    result = machine.run()
    timer.join()
    assert (result.stop, result.status) == (Stop.REQUESTED, 71)
    assert machine.run(result.ticks + 5).ticks == result.ticks + 5


def test_the_date_is_fixed_unless_given():
    source = "mov al, 9\nout 0x70, al\nin al, 0x71\nhlt"
    assert run(source).registers.eax == 0
    assert run(source, rtc=datetime(1987, 6, 5)).registers.eax == 0x87


def ring3(code: str) -> str:
    """Run `code` in ring 3; a #GP there ends the run with status 13, `int 0x20` with 3."""
    return f"""
    org 0x100000
        lgdt [gdtr]
        lidt [idtr]
        mov eax, 0x28
        ltr ax
        push 0x23
        push 0x8000
        push 2
        push 0x1b
        push user
        iret
    user:
        mov eax, 0x23
        mov ds, ax
        {code}
        int 0x20
    fault: mov al, 13
        out 0xf4, al
    done: mov al, 3
        out 0xf4, al
    gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
        dw 103, tss - 0x100000
        db 0x10, 0x89, 0, 0
    gdtr: dw 47
        dd gdt
    idt: times 13 dq 0
        dw fault - 0x100000, 8, 0x8e00, 0x10
        times 18 dq 0
        dw done - 0x100000, 8, 0xee00, 0x10
    idtr: dw 33 * 8 - 1
        dd idt
    tss: dd 0, 0x7000, 0x10
        times 23 dd 0
    """


def test_virtualizable_traps_the_unsafe_above_ring_0():
    assert run(ring3("pushf\npop eax\nsgdt [0x2000]")).status == 3
    assert run(ring3("pushf"), virtualizable=True).status == 13
    assert run(ring3("pushf"), virtualizable=["sgdt"]).status == 3
    assert run(ring3("sgdt [0x2000]"), virtualizable=["sgdt"]).status == 13
    assert run("pushf\nhlt", virtualizable=True).stop is Stop.HALTED


def test_traces():
    lines: list[str] = []
    run(TIMER % "hlt", trace="in_asm,int,exec", trace_out=lines.append)
    text = "".join(lines)
    assert "IN: main\n0x" in text
    assert "out 0x43, al" in text
    assert text.count(" v=20 ") == 50
    assert "Trace [00100000]" in text


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"ram": "1M"}, "at least 2M"),
        ({"ram": "4G"}, "at most 3G"),
        ({"ram": "lots"}, "expected a number with K, M or G"),
        ({"ram": 0}, "at least 2M"),
        ({"machine": "toaster"}, "expected pc"),
        ({"virtualizable": ["add"]}, "virtualizable add: expected some of"),
        ({"trace": "everything"}, "expected in_asm"),
    ],
)
def test_a_machine_that_cannot_be(keywords, message):
    with pytest.raises(MachineError, match=message):
        Machine(**keywords)


@pytest.mark.parametrize(
    ("text", "size"), [("2M", 2 << 20), ("4096K", 4 << 20), ("1g", 1 << 30), ("3145729", 3 << 20)]
)
def test_memory_sizes(text, size):
    assert Machine(ram=text).memory.size == size


def test_a_program_larger_than_memory():
    with pytest.raises(LoadError, match="has 0x400000 bytes of RAM"):
        run("times 4 << 20 db 0")


def test_a_result_is_plain_data_for_json():
    result = run("mov eax, 1\nhlt")
    data = json.loads(json.dumps(result.to_json()))
    assert (data["stop"], data["status"], data["registers"]["eax"]) == ("halted", 0, 1)
    assert data["exits"] == {"halt": 1}


def test_loading_again_starts_from_nothing():
    machine = Machine(ram="4M")
    machine.load(program("mov dword [0x300000], 5\nhlt"))
    machine.run()
    machine.load(program("mov eax, [0x300000]\nhlt"))
    assert machine.run().registers.eax == 0


def test_the_hole_below_one_mebibyte_is_no_memory():
    for address in (0xA0000, 0xB7FFC, 0xC0000, 0xFFFFC):
        text = f"mov dword [{address}], 0\nmov eax, [{address}]\nhlt"
        assert run(text).registers.eax == 0xFFFFFFFF
    machine = Machine(ram="4M")
    machine.memory.write(0x9FFFE, b"abcdef")
    assert machine.memory.read(0x9FFFE, 4) == b"ab\xff\xff"
    assert machine.memory.read(0xFFFFE, 4) == b"\xff\xff\0\0"
    assert (machine.memory.u8(0x9FFFE), machine.memory.u16(0x9FFFE)) == (0x61, 0x6261)
    assert machine.memory.u32(0xFFFFFFFC) == 0xFFFFFFFF


def test_but_the_screens_is():
    for address in (0xB8000, 0xBFFFC):
        text = f"mov ebx, [{address}]\nmov dword [{address}], 5\nmov eax, [{address}]\nhlt"
        registers = run(text).registers
        assert (registers.ebx, registers.eax) == (0x07200720, 5)


@given(st.lists(st.integers(1, 4_000_000), min_size=1, max_size=4, unique=True))
def test_a_snapshot_at_any_tick_changes_nothing(ticks):
    source = TIMER % "hlt" if ticks[0] % 2 else TIMER % "nop"
    expected = run(source)
    machine = Machine(ram="4M")
    machine.load(program(source))
    output = b""
    for tick in sorted(ticks):
        if machine.run(tick).stop is not Stop.OUT_OF_TICKS:
            break
        output += machine._result().output
        saved = machine.save()
        machine = Machine(ram="4M")
        machine.restore(saved)
        assert machine.save() == saved
    result = machine.run()
    assert output + result.output == expected.output
    assert (result.ticks, result.cycles) == (expected.ticks, expected.cycles)
    assert (result.registers, result.status) == (expected.registers, expected.status)


def test_a_snapshot_of_another_machine_is_refused():
    saved = Machine(ram="4M").save()
    with pytest.raises(MachineError, match="snapshot: expected"):
        Machine(ram="8M").restore(saved)
