"""From the bytes of a terminal to the keys of a PC keyboard, US layout.

A terminal sends characters, a keyboard the going down and up of keys, so a character becomes a
stroke: the key, with Shift, Ctrl or Alt held around it if need be. Arrow and function keys come as
escape sequences, Alt with a key as ESC and its character; ESC with nothing behind it in the same
piece is Escape. Keys are named by their scan code of set 1, the PC/XT's; the code of set 2, the
AT's, stands beside each. What no key makes (other scripts) is passed over. Sources: IBM PS/2
Technical Reference, keyboards; xterm's control sequences. Read keyboard.py for who uses it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ESCAPE, BACKSPACE, TAB, ENTER, CTRL, SHIFT, ALT = 0x01, 0x0E, 0x0F, 0x1C, 0x1D, 0x2A, 0x38
EXTENDED: Final = 0xE0  #: before the code of a key that the first PCs did not have

#: Codes of set 2 for those of set 1 from 0x01 on: a byte each, rows as on the keyboard.
_SET_2: Final = bytes.fromhex(
    "76 16 1e 26 25 2e 36 3d 3e 46 45 4e 55 66"  # Escape, 1 to =, Backspace
    "0d 15 1d 24 2d 2c 35 3c 43 44 4d 54 5b 5a"  # Tab, q to ], Enter
    "14 1c 1b 23 2b 34 33 3b 42 4b 4c 52 0e"  # Ctrl, a to `
    "12 5d 1a 22 21 2a 32 31 3a 41 49 4a 59"  # Shift, \ to /, right Shift
    "7c 11 29 58"  # keypad *, Alt, space, Caps Lock
    "05 06 04 0c 03 0b 83 0a 01 09 77 7e"  # F1 to F10, Num Lock, Scroll Lock
    "6c 75 7d 7b 6b 73 74 79 69 72 7a 70 71"  # the keypad
    "84 60 61 78 07"  # SysRq, none, the key beside left Shift, F11, F12
)
SET_2: Final = dict(enumerate(_SET_2, 1))
SET_1: Final = {code: key for key, code in SET_2.items()}


class Stroke(NamedTuple):
    """A key that is pressed and let go, by its code of set 1, and what is held meanwhile."""

    key: int
    held: tuple[int, ...] = ()
    extended: bool = False


#: First key, characters without and with Shift, key by key.
_ROWS: Final = (
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", 'ASDFGHJKL:"~'),
    (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (0x39, " ", ""),
)


def _characters() -> dict[int, Stroke]:
    """Strokes by character."""
    found = {}
    for first, plain, shifted in _ROWS:
        for n, character in enumerate(plain):
            found[ord(character)] = Stroke(first + n)
        for n, character in enumerate(shifted):
            found[ord(character)] = Stroke(first + n, (SHIFT,))
    for code in range(1, 27):  # Ctrl-A to Ctrl-Z
        found[code] = Stroke(found[code | 0x60].key, (CTRL,))
    for code, character in zip((0x00, 0x1C, 0x1D, 0x1E, 0x1F), " \\]6-", strict=True):
        found[code] = Stroke(found[ord(character)].key, (CTRL,))
    named = {0x08: BACKSPACE, 0x7F: BACKSPACE, 0x09: TAB, 0x0A: ENTER, 0x0D: ENTER, 0x1B: ESCAPE}
    return found | {code: Stroke(key) for code, key in named.items()}


def _sequences() -> dict[bytes, Stroke]:
    """Strokes by what comes behind ESC."""
    arrows = {"A": 0x48, "B": 0x50, "C": 0x4D, "D": 0x4B, "H": 0x47, "F": 0x4F}
    editing = {"1": 0x47, "2": 0x52, "3": 0x53, "4": 0x4F, "5": 0x49, "6": 0x51}
    functions = (11, 12, 13, 14, 15, 17, 18, 19, 20, 21)
    found = {}
    for end, key in arrows.items():
        for start in "[O":
            found[f"{start}{end}"] = Stroke(key, extended=True)
    for digit, key in editing.items():
        found[f"[{digit}~"] = Stroke(key, extended=True)
    for n, number in enumerate(functions):
        found[f"[{number}~"] = Stroke(0x3B + n)
    for n, letter in enumerate("PQRS"):
        found[f"O{letter}"] = Stroke(0x3B + n)
    found |= {"[23~": Stroke(0x57), "[24~": Stroke(0x58), "[Z": Stroke(TAB, (SHIFT,))}
    return {text.encode(): stroke for text, stroke in found.items()}


CHARACTERS: Final = _characters()
SEQUENCES: Final = _sequences()
LONGEST: Final = max(map(len, SEQUENCES))


def take_stroke(data: bytes) -> tuple[Stroke | None, bytes]:
    """The first stroke of `data`, which is not empty, and the rest; None: no key makes that."""
    first, rest = data[0], data[1:]
    if first != 0x1B or not rest:
        return CHARACTERS.get(first), rest
    for length in range(2, LONGEST + 1):
        stroke = SEQUENCES.get(rest[:length])
        if stroke is not None:
            return stroke, rest[length:]
    stroke = CHARACTERS.get(rest[0])
    if stroke is None or rest[0] == 0x1B:
        return CHARACTERS[0x1B], rest
    return stroke._replace(held=(ALT, *stroke.held)), rest[1:]


def codes_of(stroke: Stroke, scan_set: int) -> list[int]:
    """What the keyboard sends for a stroke in set 1 or 2."""
    codes = []
    for key in stroke.held:
        codes += _code(key, scan_set)
    prefix = [EXTENDED] if stroke.extended else []
    codes += prefix + _code(stroke.key, scan_set)
    codes += prefix + _code(stroke.key, scan_set, up=True)
    for key in reversed(stroke.held):
        codes += _code(key, scan_set, up=True)
    return codes


def _code(key: int, scan_set: int, up: bool = False) -> list[int]:
    if scan_set == 1:
        return [key | 0x80 if up else key]
    return [0xF0, SET_2[key]] if up else [SET_2[key]]
