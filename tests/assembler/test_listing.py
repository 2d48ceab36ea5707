"""The listing: every line, with what it made."""

from __future__ import annotations

from isa.assembler import assemble

SOURCE = """\
; a comment
%macro two 1
    mov eax, %1
    hlt
%endmacro
start:
    two 5               ; a call
%if 0
    not assembled
%endif
    db "a text of many bytes"
section .bss
space: resd 4
"""

LISTING = """\
     1                                   ; a comment
     2                                   %macro two 1
     3                                       mov eax, %1
     4                                       hlt
     5                                   %endmacro
     6                                   start:
     7                                       two 5               ; a call
     3 00000000 B805000000           <1>     mov eax, 5
     4 00000005 F4                   <1>     hlt
     8                                   %if 0
     9                                       not assembled
    10                                   %endif
    11 00000006 612074657874206F66-          db "a text of many bytes"
    11 0000000F 206D616E7920627974-
    11 00000018 6573
    12                                   section .bss
    13 00000000 <res 10h>                space: resd 4
"""


def test_listing() -> None:
    assert assemble(SOURCE).listing().rstrip().splitlines() == [
        line.rstrip() for line in LISTING.splitlines()
    ]
