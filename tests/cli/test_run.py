"""`seventeen run`: what goes in, what comes out, and the exit status."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from emulator.machine import MACHINES
from guests import find
from tests.cli.support import COMMAND, TIME_LIMIT, environment, leave_with, seventeen, write_source

#: Sends what COM1 receives back, each byte plus one, until it receives a zero byte.
ECHO = """
next:   mov dx, 0x3FD
ready:  in al, dx
        test al, 1
        jz ready
        mov dx, 0x3F8
        in al, dx
        cmp al, 0
        je done
        inc al
        out dx, al
        jmp next
done:   out 0xF4, al
"""


def test_a_source(tmp_path: Path) -> None:
    done = seventeen("run", write_source(tmp_path, leave_with(17)))
    assert (done.status, done.output, done.errors) == (17, b"", "")


def test_a_flat_binary(tmp_path: Path) -> None:
    binary = tmp_path / "guest.bin"
    binary.write_bytes(bytes.fromhex("b02a e6f4"))  # mov al, 42; out 0xF4, al
    assert seventeen("run", binary).status == 42


def test_an_elf(tmp_path: Path) -> None:
    elf = tmp_path / "hello.elf"
    assert seventeen("asm", find("hello").source, "-o", elf).status == 0
    done = seventeen("run", elf)
    assert (done.status, done.output, done.errors) == (0, find("hello").prints, "")


@pytest.mark.parametrize("name", ["hello", "echo", "rings", "os", "os_apic"])
def test_a_guest_by_name(name: str) -> None:
    guest = find(name)
    done = seventeen("run", name, typed=guest.input)
    assert (done.status, done.output) == (guest.status, guest.prints)


def test_a_guest_runs_on_its_own_machine_unless_told() -> None:
    """The pc has no MP table, which the guest says before it ends."""
    done = seventeen("run", "os_apic", "--machine", "pc")
    assert (done.status, done.output) == (60, b"no MP table, or none that holds\n")
    done = seventeen("run", "hello", "--machine", "apic")
    assert (done.status, done.output) == (0, find("hello").prints)


def test_all_machines_are_named() -> None:
    help_text = seventeen("run", "--help").output.decode()
    found = re.search(r"--machine M +The machine, ([\w ]+);", help_text)
    assert found
    assert tuple(found[1].split(" or ")) == MACHINES


def test_a_guest_is_assembled_once(tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    first = seventeen("run", "hello", **cache)
    kept = list((tmp_path / "seventeen").iterdir())
    assert len(kept) == 1
    changed = kept[0].read_bytes().replace(b"ring 0", b"ring O")
    kept[0].write_bytes(changed)
    assert seventeen("run", "hello", **cache).output == first.output.replace(b"0", b"O")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = seventeen("run", "hello", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert (done.status, done.errors) == (0, "")


def test_every_byte_passes_unchanged(tmp_path: Path) -> None:
    typed = bytes(range(1, 255)) + b"\x01x\0"
    done = seventeen("run", write_source(tmp_path, ECHO), typed=typed)
    assert done.output == bytes(byte + 1 for byte in typed[:-1])
    assert done.status == 0


def test_output_is_there_before_the_guest_ends(tmp_path: Path) -> None:
    source = write_source(tmp_path, ECHO)
    with subprocess.Popen(
        [*COMMAND, "run", str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdin
        assert process.stdout
        for byte in b"abc":
            process.stdin.write(bytes([byte]))
            process.stdin.flush()
            assert process.stdout.read(1) == bytes([byte + 1])
        process.stdin.write(b"\0")
        process.stdin.close()
        assert process.wait(TIME_LIMIT) == 0


def test_a_guest_that_halts_for_good_ends_with_0(tmp_path: Path) -> None:
    done = seventeen("run", write_source(tmp_path, "cli\nhlt"))
    assert (done.status, done.errors) == (0, "")


def test_a_guest_that_waits_for_nothing_is_told(tmp_path: Path) -> None:
    done = seventeen("run", write_source(tmp_path, "sti\nhlt"))
    assert done.status == 72
    assert len(done.error_lines) == 1


def test_out_of_ticks(tmp_path: Path) -> None:
    done = seventeen("run", write_source(tmp_path, "jmp $"), "--max-ticks", "100_000")
    assert done.status == 68
    assert done.error_lines == [f"seventeen: {tmp_path}/guest.asm: out of ticks"]


def test_a_triple_fault_shows_its_chain_and_its_line(tmp_path: Path) -> None:
    source = write_source(tmp_path, "global _start\n_start: nop\nbroken:\nnop\nud2\n")
    done = seventeen("run", source)
    assert done.status == 67
    first, *chain = done.error_lines
    assert "triple fault: #UD (6, " in first
    assert "at eip 0x00100002" in first
    assert "bytes 0f 0b" in first
    assert "broken+0x1" in chain[0]
    assert f"{source}:5" in chain[0]
    assert [line.split()[:2] for line in chain[1:]] == [["then", "#GP"]] * 2 + [
        ["then", "shutdown"]
    ]


def test_what_the_machine_leaves_out_is_named(tmp_path: Path) -> None:
    done = seventeen("run", write_source(tmp_path, "mov eax, cr0\nand al, 0xFE\nmov cr0, eax"))
    assert done.status == 69
    assert "protected mode" in done.error_lines[0]


def test_json(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    source = write_source(tmp_path, leave_with(3))
    assert seventeen("run", source, "--json", file).status == 3
    result = json.loads(file.read_text())
    assert result["ticks"] == 2
    assert result["status"] == 3
    assert result["exits"] == {"port_write": 1}
    assert result["cycles"] > 0
    assert result["technique"] == "native"
    assert result["wall"]["seconds"] > 0


def test_the_same_run_gives_the_same_result(tmp_path: Path) -> None:
    results = []
    for number in range(2):
        file = tmp_path / f"{number}.json"
        done = seventeen("run", "os", "--json", file, typed=find("os").input)
        result = json.loads(file.read_text())
        del result["wall"]
        results.append((done, result))
    assert results[0] == results[1]


def test_stats(tmp_path: Path) -> None:
    done = seventeen("run", write_source(tmp_path, leave_with(0)), "--stats")
    words = [line.split() for line in done.error_lines]
    assert ["ticks", "2"] in words
    assert ["exits:", "port_write", "1"] in words


def test_traces_go_to_stderr(tmp_path: Path) -> None:
    source = write_source(tmp_path, "global _start\n_start: xor eax, eax\n" + leave_with(0))
    done = seventeen("run", source, "-d", "in_asm,exec")
    assert "xor eax, eax" in done.errors
    assert "_start" in done.errors
    assert done.status == 0


def test_traces_go_to_a_file(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert seventeen("run", "rings", "-d", "int", "-D", trace).errors == ""
    events = [line for line in trace.read_text().splitlines() if "v=0d" in line]
    assert len(events) == 6  # the guest says so: it catches vector 13 six times
    assert all("cpl=3" in line for line in events)


def test_kernel_args_and_modules_arrive(tmp_path: Path) -> None:
    # Multiboot information: the command line's address is at 16, modules' count at 20, table at 24.
    source = write_source(
        tmp_path,
        """
        %include "guest.inc"
        start:
            mov ecx, [ebx + 24]
            mov ecx, [ecx]
            mov cl, [ecx]                   ; the first module's first byte
            mov esi, [ebx + 16]
        .find:
            lodsb
            cmp al, '='
            jne .find
            lodsb
            sub al, '0'
            add al, cl
            out 0xF4, al
        """,
    )
    module = tmp_path / "module"
    module.write_bytes(b"\x10")
    done = seventeen("run", source, "--kernel-args", "a=5", "--module", module)
    assert done.status == 0x15, done.errors


def test_an_initrd_is_a_multiboot_kernels_first_module(tmp_path: Path) -> None:
    source = write_source(
        tmp_path,
        """
        %include "guest.inc"
        start:
            mov ecx, [ebx + 24]
            mov eax, [ecx]
            mov al, [eax]                   ; the first module's first byte
            mov ecx, [ecx + 16]
            add al, [ecx]                   ; and the second's
            out 0xF4, al
        """,
    )
    (tmp_path / "one").write_bytes(b"\x10")
    (tmp_path / "two").write_bytes(b"\x04")
    done = seventeen("run", source, "--module", tmp_path / "two", "--initrd", tmp_path / "one")
    assert done.status == 0x14, done.errors
    missing = seventeen("run", source, "--initrd", tmp_path / "none")
    assert missing.errors == f"seventeen: {tmp_path / 'none'}: No such file or directory\n"


def test_the_apic_machine_has_mp_tables(tmp_path: Path) -> None:
    source = write_source(tmp_path, "mov al, [0xF0001]\nand al, 63\nout 0xF4, al")
    assert seventeen("run", source, "--machine", "apic").status == ord("M") & 63
    assert seventeen("run", source).status == 0


def test_ram_is_what_was_asked_for(tmp_path: Path) -> None:
    probe = "mov dword [0x2fffffc], 1\nmov eax, [0x2fffffc]\nout 0xF4, al"
    source = write_source(tmp_path, probe)
    assert seventeen("run", source, "--ram", "48M").status == 1
    assert seventeen("run", source, "--ram", "47M").status == 0xFF & 0x3F


def test_virtualizable_makes_popf_trap(tmp_path: Path) -> None:
    silent = seventeen("run", "probe_popf")
    assert silent.output == find("probe_popf").prints
    caught = seventeen("run", "--virtualizable", "probe_popf")
    assert caught.output != silent.output
    named = seventeen("run", "--virtualizable=popf,pushf", "probe_popf")
    assert named.output == caught.output
    other = seventeen("run", "--virtualizable=sgdt", "probe_popf")
    assert other.output == silent.output


def test_rtc(tmp_path: Path) -> None:
    # CMOS register 9 is the year, in BCD.
    source = write_source(tmp_path, "mov al, 9\nout 0x70, al\nin al, 0x71\nout 0xF4, al")
    assert seventeen("run", source, "--rtc", "1923-01-02T03:04:05").status == 0x23


def test_a_reader_that_goes_away_ends_the_run(tmp_path: Path) -> None:
    forever = "next: mov dx, 0x3F8\nmov al, 'x'\nout dx, al\njmp next"
    process = subprocess.Popen(
        [*COMMAND, "run", str(write_source(tmp_path, forever))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout
    assert process.stderr
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(TIME_LIMIT) == 73
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
