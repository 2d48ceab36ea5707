"""Sources of input: what is known beforehand, what may still come, and the end of both."""

from __future__ import annotations

import os
import threading
import time

import pytest

from emulator.console import BytesInput, StreamInput


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == writing  # some tests close it themselves


def test_bytes_end():
    source = BytesInput(b"x" * 5000)
    got = b""
    while data := source.read():
        got += data
    assert got == b"x" * 5000
    assert source.read() == b""
    assert not source.live


def test_a_file_is_all_there(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"abc")
    with path.open("rb") as stream:
        source = StreamInput(stream.fileno())
        assert (source.read(), source.read(), source.live) == (b"abc", b"", False)


def test_a_pipe_that_was_written_is_all_there(pipe):
    os.write(pipe[1], b"abc")
    os.close(pipe[1])
    source = StreamInput(pipe[0])
    assert (source.read(), source.read(), source.live) == (b"abc", b"", False)


def test_a_pipe_that_waits_is_live_and_ends(pipe):
    source = StreamInput(pipe[0])
    assert source.read() is None
    assert source.live
    os.write(pipe[1], b"late")
    assert source.read() == b"late"
    assert source.read() is None
    os.close(pipe[1])
    assert source.read() == b""
    assert not source.live


def test_waiting_ends_when_input_comes(pipe):
    source = StreamInput(pipe[0])
    writer = threading.Timer(0.05, os.write, (pipe[1], b"x"))
    writer.start()
    start = time.monotonic()
    source.wait(10)
    assert time.monotonic() - start < 5
    assert source.read() == b"x"
    writer.join()


def test_waiting_ends_when_time_is_up(pipe):
    source = StreamInput(pipe[0])
    start = time.monotonic()
    source.wait(0.05)
    assert 0.04 < time.monotonic() - start < 5


def test_a_closed_descriptor_is_an_end(pipe):
    reading = os.dup(pipe[0])
    source = StreamInput(reading)
    os.close(reading)
    assert source.read() == b""
