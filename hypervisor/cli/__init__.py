"""The command line: `seventeen COMMAND ...`, one module a command.

`main` is the entry point. A command's module is imported when the command is used, and what a
command needs when it needs it: `seventeen run` on a built program should be on its way before a
person notices. Errors are exceptions that end here, as one line on stderr and an exit status of
status.py. Read run.py next.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any, Final, NoReturn

import click

from hypervisor import __version__
from hypervisor.cli.status import Stop, StopError

#: Command -> what it does, for the list of commands; its module has the same name.
COMMANDS: Final = {
    "run": "Run a guest program.",
    "asm": "Assemble a source to a flat binary or a multiboot ELF.",
    "disasm": "Disassemble a flat binary or an ELF.",
    "isa": "Show the instruction set, or one instruction.",
    "classify": "Decide by experiment which instructions are unsafe.",
    "fidelity": "Compare guests under techniques with the bare machine.",
    "compare": "Compare what techniques cost.",
    "blocks": "Draw a program's translated blocks.",
    "patches": "List what the in-place patcher overwrites in a program.",
    "tour": "Show what the laboratory is for, one screen at a time.",
    "guests": "List, show or copy the guest programs that come along.",
    "completion": "Print the shell's completion script.",
}


class Commands(click.Group):
    """Commands that are imported on use; the list of them needs no import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"hypervisor.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"no command {name!r}; {suggest(name, list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def suggest(name: str, known: list[str], otherwise: str = "") -> str:
    """``did you mean a, b?``; if nothing is close, `otherwise`, or else what there is."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=4, cutoff=0.6)
    if close:
        return f"did you mean {', '.join(close)}?"
    return otherwise or f"there are {', '.join(known)}"


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False
)
@click.version_option(__version__, prog_name="seventeen")
def seventeen() -> None:
    """A small x86-like machine and the hypervisors that cope with it.

    Try `seventeen run hello`.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command line, the process's own if none is given; exits with its status."""
    if arguments is not None:
        sys.exit(call(arguments))
    gc.disable()  # loading makes no garbage, and looking for it costs 10 ms; run.py enables it
    if sys.stdout is None or sys.stderr is None:  # closed before we were started
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    status = call(None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # Python would tidy up for 10 to 20 ms, a fifth of a short run


def call(arguments: list[str] | None) -> int:
    """Run one command line; the exit status."""
    try:
        result: Any = seventeen.main(arguments, prog_name="seventeen", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # `seventeen isa | head`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Stop.OUTPUT_CLOSED
    except BaseException as error:
        return end_with(error)
    return result if isinstance(result, int) else 0


def end_with(error: BaseException) -> int:
    """Say on stderr, in one line where one will do, what went wrong; returns the exit status."""
    if isinstance(error, SystemExit):  # click's own, on a broken pipe
        return Stop.OUTPUT_CLOSED if error.code == 1 else int(error.code or 0)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return 130  # as a shell does: 128 and the number of SIGINT
    stop, message = explain(error)
    print(f"seventeen: {message}", file=sys.stderr)
    return stop


def explain(error: BaseException) -> tuple[Stop, str]:
    """Whose fault it is, as exit status and message; input that is at fault is never ours."""
    if isinstance(error, StopError):
        return error.stop, str(error)
    if isinstance(error, click.UsageError):
        text = " ".join(error.format_message().split()).rstrip(".")
        path = error.ctx.command_path if error.ctx else "seventeen"
        return Stop.USAGE, f"{text} (try {path} --help)"
    if isinstance(error, click.ClickException):
        return Stop.USAGE, " ".join(error.format_message().split())
    if isinstance(error, OSError):
        missing = isinstance(error, FileNotFoundError)
        where = f"{error.filename}: " if error.filename else ""
        return Stop.MISSING if missing else Stop.BAD_INPUT, f"{where}{error.strerror or error}"
    return explain_package(error)


def explain_package(error: BaseException) -> tuple[Stop, str]:
    """Errors of our packages are about the input; any other exception is a bug of ours."""
    bases = {"isa": "isa.errors", "emulator": "emulator.errors", "hypervisor": "hypervisor.errors"}
    for package, home in bases.items():
        module = sys.modules.get(home)
        if isinstance(error, getattr(module, "CoreError", ())):
            return Stop.INTERNAL, str(error)
        if isinstance(error, getattr(module, f"{package.capitalize()}Error", ())):
            return Stop.BAD_INPUT, str(error)
    if isinstance(error, MemoryError):
        return Stop.BAD_INPUT, "out of memory: ask for less --ram"
    if os.environ.get("SEVENTEEN_TRACEBACK"):
        raise error
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    message = f"a bug of ours: {text} at {where} (SEVENTEEN_TRACEBACK=1 shows the traceback)"
    return Stop.INTERNAL, message
