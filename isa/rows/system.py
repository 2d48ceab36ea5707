"""Rows: flags, descriptor tables, control registers, ports: what an operating system is made of.

`isa/table.py` says how rows are written; they are laid out as a table, not as code.
"""
# fmt: off

from __future__ import annotations

from isa.rows.group import Rows

rows = Rows()
group = rows.group

group("cld", "clear the direction flag", "FC | *", writes="d")
group("std", "set the direction flag", "FD |", writes="d")
group("clc", "clear the carry flag", "F8 |", writes="c")
group("stc", "set the carry flag", "F9 |", writes="c")
group("cmc", "complement the carry flag", "F5 |", writes="c", reads="c")
group("cli", "clear the interrupt flag", "FA | *", writes="i", privilege="iopl",
    sensitive="control", ends=True, cost="flags", translation="code")
group("sti", "set the interrupt flag after the next instruction", "FB | *", writes="i",
    privilege="iopl", sensitive="control", ends=True, cost="flags", translation="code")
group("pushf", "push EFLAGS", "9C | *", reads="oszapctidlnrkx", sensitive="behaviour",
    cite="3A PUSHF", cost="stack", translation="code",
    leaks="shows the real IF and IOPL, not the guest's")
group("popf", "pop EFLAGS", "9D | *", writes="oszapctidlnkx", sensitive="both", ends=True,
    cite="3A POPF", cost="flags", translation="code",
    leaks="IF (unless CPL <= IOPL) and IOPL (unless CPL = 0) are silently dropped")

group("sgdt", "store GDTR", """
    0F 01 /0   | Ms
""", access="c", sensitive="behaviour", cite="3A SGDT", cost="system",
    leaks="shows the real GDT's base and limit")
group("sidt", "store IDTR", """
    0F 01 /1   | Ms *
""", access="c", sensitive="behaviour", cite="3A SIDT", cost="system",
    leaks="shows the real IDT's base and limit")
group("sldt", "store the LDT selector", """
    0F 00 /0   | Evw
""", access="c", sensitive="behaviour", cite="3A SLDT", cost="system",
    translation="code",
    leaks="shows the real LDTR")
group("str", "store the task register", """
    0F 00 /1   | Evw
""", access="c", sensitive="behaviour", cite="3B STR", cost="system",
    translation="code",
    leaks="shows the real TR, the hypervisor's")
group("smsw", "store the low word of CR0", """
    0F 01 /4   | Evw *
""", access="c", sensitive="behaviour", cite="3A SMSW", cost="system",
    translation="code",
    leaks="shows the real CR0: paging, TS and EM as the hypervisor set them")
group("lar", "load a descriptor's access rights", """
    0F 02 /r   | Gv,Ew
""", access="cc", writes="z", sensitive="behaviour", cite="3B LAR", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")
group("lsl", "load a segment limit", """
    0F 03 /r   | Gv,Ew
""", access="cc", writes="z", sensitive="behaviour", cite="3B LSL", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")
group("verr", "verify a segment for reading", """
    0F 00 /4   | Ew
""", access="c", writes="z", sensitive="behaviour", cite="3B VERR", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")
group("verw", "verify a segment for writing", """
    0F 00 /5   | Ew
""", access="c", writes="z", sensitive="behaviour", cite="3B VERW", cost="system",
    leaks="reads the real descriptor table and holds its DPL against the real CPL")
group("lgdt", "load GDTR", """
    0F 01 /2   | Ms *
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)
group("lidt", "load IDTR", """
    0F 01 /3   | Ms *
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)
group("lldt", "load LDTR", """
    0F 00 /2   | Ew
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)
group("ltr", "load the task register", """
    0F 00 /3   | Ew
""", access="c", privilege="cpl0", sensitive="control", cost="system", ends=True)
group("lmsw", "load the low word of CR0", """
    0F 01 /6   | Ew
""", access="c", privilege="cpl0", sensitive="control", cost="cr_write", ends=True)
group("clts", "clear CR0.TS", "0F 06 |", privilege="cpl0", sensitive="control", cost="cr_read",
    ends=True)
group("invlpg", "invalidate a TLB entry", """
    0F 01 /7   | M
""", access="c", privilege="cpl0", sensitive="control", cost="invlpg", ends=True)
group("wbinvd", "write back and invalidate the caches", "0F 09 |",
    privilege="cpl0", cost="system")
group("hlt", "halt until an interrupt", "F4 | *", privilege="cpl0", sensitive="control",
    ends=True, cost="system")
group("in", "input from a port", """
    E4 ib      | AL,Ib *
    E5 ib      | eAX,Ib
""", access="cc", privilege="io", sensitive="both", cost="io", ends=True, body="in_imm")
group("in", "input from the port in DX", """
    EC         | AL,DX *
    ED         | eAX,DX
""", access="cc", privilege="io", sensitive="both", cost="io", ends=True, body="in_dx")
group("out", "output to a port", """
    E6 ib      | Ib,AL *
    E7 ib      | Ib,eAX
""", access="cc", privilege="io", sensitive="control", cost="io", ends=True, body="out_imm")
group("out", "output to the port in DX", """
    EE         | DX,AL *
    EF         | DX,eAX
""", access="cc", privilege="io", sensitive="control", cost="io", ends=True, body="out_dx")
group("wait", "wait for an FPU's exceptions; there is none, but CR0.MP with TS is asked first",
    "9B |", cost="alu")
group("cpuid", "identify the processor", "0F A2 |", cost="cpuid")
group("rdtsc", "read the time-stamp counter (guest ticks)", "0F 31 |", privilege="tsd",
    sensitive="behaviour", cost="system", ends=True, translation="identical")
group("rdmsr", "read a model-specific register", "0F 32 |", privilege="cpl0",
    sensitive="behaviour", cost="msr")
group("wrmsr", "write a model-specific register", "0F 30 |", privilege="cpl0",
    sensitive="control", cost="msr", ends=True)
