"""`seventeen run --disk`: which image is which drive, and what is in it however the run ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import click
import pytest

from emulator.disk import MOST_DISKS, SECTOR, Disk
from hypervisor.cli.disks import MOST, Given, arrange, parse_disk
from tests.cli.support import COMMAND, TIME_LIMIT, environment, seventeen, write_source
from tests.cli.test_terminal import Session
from tests.hypervisor.disk_guest import AFTERWARDS, IMAGE, SOURCE

#: Writes a sector of "!" to sector 1 of the drive in ESI (0xE0, 0xF0), says W, and %s.
WRITE = """
        mov edx, 0x1F2
        mov al, 1
        out dx, al
        inc edx
        out dx, al
        inc edx
        mov al, 0
        out dx, al
        inc edx
        out dx, al
        inc edx
        mov al, 0xE0
        out dx, al
        inc edx
        mov al, 0x30
        out dx, al
        mov ecx, 256
        mov edx, 0x1F0
        mov ax, '!!'
.more:  out dx, ax
        loop .more
        mov edx, 0x1F7
.busy:  in al, dx
        test al, 0x80
        jnz .busy
        mov dx, 0x3F8
        mov al, 'W'
        out dx, al
"""
SPIN = WRITE + "jmp $\n"
#: Says the first byte of each of the four disks.
SHOW = """
        mov ebp, 0x1F0
        mov bl, 0xE0
next:   lea edx, [ebp + 6]
        mov al, bl
        out dx, al
        inc edx
        mov al, 0x20
        out dx, al
        in al, dx
        test al, 0x88                   ; busy or with data, or nobody has taken the command
        mov bh, '-'
        jz say
busy:   in al, dx
        test al, 0x80
        jnz busy
        mov edx, ebp
        mov edi, 0x180000
        mov ecx, 128
        rep insd
        mov bh, [0x180000]
say:    mov al, bh
        mov edx, 0x3F8
        out dx, al
        xor bl, 0x10
        test bl, 0x10
        jnz next
        sub ebp, 0x80
        cmp ebp, 0x170
        je next
        mov al, 0
        out 0xF4, al
"""


def image(folder: Path, name: str, text: bytes = b"") -> Path:
    """An image of four sectors that begin with `text`; sector 1 is what drives begin with."""
    path = folder / name
    path.write_bytes(text.ljust(SECTOR, b"\0") * 4)
    return path


def test_there_is_one_number_of_disks() -> None:
    assert MOST == MOST_DISKS


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("a.img", Given("a.img")),
        ("a.img,index=3", Given("a.img", 3)),
        ("file=a.img,format=raw,if=ide,media=disk", Given("a.img")),
        ("index=1,file=a.img,snapshot=on", Given("a.img", 1, True)),
        ("a,,b.img,snapshot=off", Given("a,b.img")),
        ("x=y.img", Given("x=y.img")),
    ],
)
def test_words_are_qemus(text: str, given: Given) -> None:
    assert parse_disk(text) == given


@pytest.mark.parametrize(
    "text", ["", "index=1", "a,b", "a,index=4", "a,format=qcow2", "a,snapshot", "a,=", ",index=1"]
)
def test_words_that_mean_nothing(text: str) -> None:
    with pytest.raises(click.UsageError, match=r"^--disk "):
        parse_disk(text)


def test_disks_without_an_index_fill_the_gaps() -> None:
    drives = arrange(["a", "b,index=0", "c,index=3", "d"])
    assert [drive and drive.file for drive in drives] == ["b", "a", "d", "c"]
    drives = arrange(["a,index=1"])
    assert [drive and drive.file for drive in drives] == [None, "a"]
    with pytest.raises(click.UsageError, match="a and b both have index=2"):
        arrange(["a,index=2", "b,index=2"])
    with pytest.raises(click.UsageError, match="at most 4 disks, found 5"):
        arrange(["a"] * 5)


def test_each_image_is_its_own_drive(tmp_path: Path) -> None:
    source = write_source(tmp_path, SHOW)
    one, two, three = (image(tmp_path, f"{n}.img", n.encode()) for n in "123")
    done = seventeen("run", source, "--disk", one, "--disk", f"{three},index=3", "--disk", two)
    assert (done.status, done.text, done.errors) == (0, "12-3", "")
    assert seventeen("run", source, "--disk", f"{one},index=1").text == "-1--"
    assert seventeen("run", source).text == "----"


@pytest.mark.parametrize(
    "technique",
    ["native", "interpret", "translate", "patch", "hardware", "trap --virtualizable"],
)
def test_a_driver_writes_to_the_file(technique: str, tmp_path: Path) -> None:
    source, path = write_source(tmp_path, SOURCE), tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    done = seventeen("run", source, "--disk", path, "--technique", *technique.split())
    assert (done.status, done.errors) == (0, "")
    assert path.read_bytes() == AFTERWARDS


@pytest.mark.parametrize("how", [["--snapshot"], [",snapshot=on"]])
def test_a_snapshot_leaves_the_file_alone(how: list[str], tmp_path: Path) -> None:
    source, path = write_source(tmp_path, SOURCE), tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    option, suffix = (how, "") if how[0].startswith("-") else ([], how[0])
    done = seventeen("run", source, "--disk", f"{path}{suffix}", *option)
    assert (done.status, done.errors) == (0, "")
    assert path.read_bytes() == IMAGE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_what_was_written_is_in_the_file_whatever_ends_the_run(
    number: signal.Signals, tmp_path: Path
) -> None:
    source, path = write_source(tmp_path, SPIN), image(tmp_path, "disk.img")
    with subprocess.Popen(
        [*COMMAND, "run", str(source), "--disk", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(1) == b"W"
        refused = seventeen("run", source, "--disk", path)
        process.send_signal(number)
        status = process.wait(TIME_LIMIT)
        assert process.stderr.read().strip() == b""
    assert status == (130 if number == signal.SIGINT else -number)
    assert path.read_bytes()[: 3 * SECTOR] == bytes(SECTOR) + b"!" * SECTOR + bytes(SECTOR)
    assert (refused.status, len(refused.error_lines)) == (65, 1)
    assert "in use: another machine has it open" in refused.errors
    Disk(path).close()


def test_signals_and_ctrl_a_x_close_the_disks(tmp_path: Path) -> None:
    """Seen from a module that says so on stderr, in place of the flush that shows nowhere."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "sync = os.fdatasync\n"
        "os.fdatasync = lambda fd: (os.write(2, b'flushed\\n'), sync(fd))\n"
    )
    path = image(tmp_path, "disk.img")
    source = write_source(tmp_path, SPIN)
    for end in (signal.SIGTERM, signal.SIGHUP, b"\x01x"):
        session = Session(source, "--disk", str(path), path=str(tmp_path))
        try:
            session.expect(b"W")
            if isinstance(end, bytes):
                session.type(end)
            else:
                session.process.send_signal(end)
            session.expect(b"flushed")
            assert session.wait() == (71 if isinstance(end, bytes) else -end)
            assert session.settings == session.before
        finally:
            session.close()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--disk", "{folder}/none.img"], 66, "none.img: No such file or directory"),
        (["--disk", "{folder}"], 65, "irectory"),
        (["--disk", "{folder}/odd.img"], 65, "multiple of 512 bytes, found 7"),
        (["--disk", "{folder}/empty.img"], 65, "found an empty file"),
        (["--disk", "{folder}/a.img,index=9"], 64, "expected index=0|1|2|3, found '9'"),
        (["--disk", "{folder}/a.img", "--disk", "{folder}/a.img"], 65, "in use"),
        (["--snapshot"], 64, "--snapshot goes with --disk"),
        (["hello", "--technique", "trap", "--disk", "{folder}/a.img"], 64, "one PROGRAM"),
    ],
)
def test_errors_are_one_line(arguments: list[str], status: int, words: str, tmp_path: Path) -> None:
    image(tmp_path, "a.img")
    (tmp_path / "odd.img").write_bytes(b"1234567")
    (tmp_path / "empty.img").touch()
    done = seventeen("run", "hello", *(word.format(folder=tmp_path) for word in arguments))
    assert (done.status, len(done.error_lines), done.text) == (status, 1, "")
    assert words in done.errors


def test_an_image_is_free_again_after_the_run(tmp_path: Path) -> None:
    path = image(tmp_path, "disk.img")
    assert seventeen("run", "hello", "--disk", path).status == 0
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
