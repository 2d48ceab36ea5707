"""Mutants of what a translation is made of: forms, transfers, stores, gates, checks, the builder.

mutants.py says what a mutant is; mutants_translate.py has those of the translator at work.
"""

from __future__ import annotations

from typing import Final

from hypervisor.translator import builder, check, forms, gate, layout, stores, transfers, writer
from isa import site_forms
from tests.hypervisor.mutants import Change, Mutant, edit, value

_FASTER: Final = "performance only: "
_W: Final = writer.UnitWriter


def _rows(name: str, *rows: tuple[str, Change] | tuple[str, Change, str]) -> list[Mutant]:
    return [Mutant(f"{name}: {what}", *rest) for what, *rest in rows]  # type: ignore[arg-type]


def _bare(name: str) -> forms.Form:
    """The form of a bare opcode, for its prefixed kin as well."""
    form = site_forms.FORM_BY_NAME[name]
    return lambda w, instruction: form.write(w, instruction.bytes)


_F: Final = forms
_FORMS: Final = _rows(
    "forms",
    *((f"{name} as it stands", value(_F, "FORMS", tuple(
        forms.identical if row.body == name else form
        for row, form in zip(forms.ROWS, forms.FORMS, strict=True)
    ))) for name in sorted({
        row.body for row, form in zip(forms.ROWS, forms.FORMS, strict=True)
        if form is not forms.identical and f"translate_{row.body}" not in vars(transfers)
    })),
    ("CS is the real one", edit(_F.translate_mov_from_sreg, "source.number == CS", "False")),
    ("GS and SS are the real ones", edit(_F.translate_mov_from_sreg,
                                         "source.number in _SHOWN", "False")),
    ("CS is pushed as it is", edit(_F.translate_push_sreg, "source.number == CS", "False")),
    ("GS and SS are pushed as they are", edit(_F.translate_push_sreg,
                                              "source.number in _SHOWN", "False")),
    ("CS is pushed in 32 bits", edit(_F.translate_push_sreg, "size != 32", "False")),
    ("EAX stays what is shown",
     edit(_F._show, '    w.do("mov", whole, w.field(save), lost={lost}, weight=1)', "    pass")),
    ("what is shown is found by EAX", edit(_F._show, "EAX in (to.base, to.index)", "False")),
    ("EAX is not lost while it is shown",
     edit(_F._show, "GENERAL[16][number], lost={lost}", "GENERAL[16][number]")),
    ("SS is loaded", edit(_F._load, "segment.number == SS or ", "")),
    ("segments are loaded in 16 bits", edit(_F._load, " or instruction.operand_size != 32", "")),
    ("GS is loaded as DS is", edit(_F._load, "segment.number == GS", "False")),
    ("any GS is the same", edit(_F._load_gs, "    w.hypercall(instruction.bytes, lost={Lost.ECX})",
                                "    w.step(b'\\x66\\x90', lost={Lost.ECX})")),
    ("the GS that is popped stays on the stack",
     edit(_F._load_gs, "Memory(ESP, None, 1, 4)", "Memory(ESP, None, 1, 0)")),
    ("EAX is lost where GS is loaded",
     edit(_F._load_gs, '    w.do("mov", R_EAX, w.field(SAVE_EAX), lost=both)', "    pass")),
    ("ECX is not lost where GS is loaded",
     edit(_F._load_gs, "w.hypercall(instruction.bytes, lost={Lost.ECX})",
          "w.hypercall(instruction.bytes)")),
    ("selectors with RPL 1 or 2 are loaded",
     edit(_F._load_data, "    w.hypercall(instruction.bytes, lost=lost)",
          "    w.step(b'\\x66\\x90', lost=lost)")),
    ("the area's selector is loaded in ring 1",
     edit(_F._load_data, "lea\", R_ECX, Memory(ECX, None, 1, -_OWN",
      "lea\", R_ECX, Memory(ECX, None, 1, 8 - _OWN")),
    ("ECX is not lost where DS is loaded",
     edit(_F._load_data, "w.hypercall(instruction.bytes, lost=lost)",
          "w.hypercall(instruction.bytes)")),
    ("ring 3 has the kernel's forms", edit(_F.form_of, "context.user and row.id in _KERNELS",
                                           "False")),
    ("IRET leaves the cache under --user", edit(_F.form_of, 'context.whole and row.body == "iret"',
                                                "False")),
    ("CS and GS are the translator's for all",
     edit(_F.form_of, "type(operand) is Memory and operand.effective_segment in (CS, GS)",
          "False")),
    ("LEA calls out", edit(_F.form_of, "row.id not in _ADDRESS_ONLY", "True"),
     _FASTER + "it computes the same"),
    ("CS that ends is not looked at", edit(_F.form_of, "limited or ", "")),
    ("transfers have 32 bits", edit(_F.form_of, " or instruction.prefixes.operand_size", "")),
    ("IRET stays in the kernel by any CS",
     edit(_F._iret_within_kernel, 'encoded("cmp", R_ECX, w.area(layout.SAME_CS))',
          'encoded("cmp", R_ECX, R_ECX)')),
    ("IRET within the kernel takes all flags", edit(_F._iret_within_kernel, '"tlnrv"', '"v"')),
    ("IRET within the kernel leaves IF",
     edit(_F._iret_within_kernel, '    w.do("setc", w.field(IF_FLAG), lost=lost)', "    pass")),
    ("IRET within the kernel is no wish",
     edit(_F._iret_within_kernel, '    w.do("mov", w.field(WANTED), R_ECX, lost=lost)',
          "    pass")),
    ("an IRET that calls out has lost nothing",
     edit(_F._iret_within_kernel, "w.hypercall(original, {Lost.FLAGS, Lost.ECX})",
          "w.hypercall(original)")),
    *((f"{name} with a prefix is the bare one", value(_F, "FORMS", tuple(
        _bare(name) if row.body == name else form
        for row, form in zip(forms.ROWS, forms.FORMS, strict=True)
    ))) for name in ("cli", "sti", "pushf", "popf", "iret")),
)  # fmt: skip

_X: Final = transfers
_TRANSFERS: Final = _rows(
    "transfers",
    ("any EIP is the one that is wanted",
     edit(_X.write_head, "    glue(CALL_OUT)", "    glue(b'\\x66\\x90')")),
    ("none is the one that is wanted", edit(_X.write_head, "-eip)", "-eip + 1)")),
    ("ECX is lost in a head", edit(_X.write_head, "    glue(RESTORE_ECX)", "    pass")),
    ("a head is the unit's own place",
     edit(_X.write_head, "Place(eip, target=True)", "Place(eip)")),
    ("ECX is not saved at a return",
     edit(_X.translate_ret, '    w.do("mov", w.field(SAVE_ECX), R_ECX)', "    pass")),
    ("ECX is not saved at a jump",
     edit(_X._want, '    w.do("mov", w.field(SAVE_ECX), R_ECX)', "    pass")),
    ("a return is no wish", edit(_X.translate_ret,
     '    w.do("mov", w.field(WANTED), R_ECX, lost={Lost.ECX}, released=released)', "    pass")),
    ("a jump is no wish", edit(_X._want, '    w.do("mov", w.field(WANTED), R_ECX, lost={Lost.ECX})',
                               "    pass")),
    ("a jump by a register is no wish",
     edit(_X._want, '        w.do("mov", w.field(WANTED), source)', "        pass")),
    ("a jump's ECX is not lost", edit(_X._want, "return R_CX, (Lost.ECX,)", "return R_CX, ()")),
    ("a call by ESP finds what it pushed",
     edit(_X._want, "_LOW if source.number == ESP else ", "")),
    ("a return releases nothing",
     edit(_X.translate_ret, "released += operand.value", "pass")
     ),
    ("a return with an operand releases no more",
     edit(_X.translate_ret, "operand.value)", "0)")),
    ("a call pushes nothing",
     edit(_X.translate_call, "    _push(w, w.site.end)", "    pass")),
    ("an indirect call pushes nothing",
     edit(_X.translate_call_indirect, "    _push(w, w.site.end, *lost)", "    pass")),
    ("a call's ESP is not lost", edit(_X.translate_call, "lost={Lost.ESP}", "lost=()")),
    ("an indirect call's ESP is not lost",
     edit(_X.translate_call_indirect, "Lost.ESP, ", "")),
    ("LOOP counts CX as ECX", edit(_X._by_counter, "instruction.address_size == 16", "False")),
    ("LOOP counts twice", edit(_X._by_counter, "weight=1", "weight=0")),
    ("indirect jumps take no tick", edit(_X._look_up, "weight=1", "weight=0")),
    ("links take no tick", edit(_W.link, "self.step(code, lost, weight=weight)",
                                "self.step(code, lost, weight=0)")),
    ("go-ons take a tick", edit(_W.glue, "self.weightless.append(len(self.data))", "pass")),
    ("a stub is nobody's", edit(_W.finish, "Place(link.eip, link=link)", "Place(link.eip)")),
    ("IRET leaves with the translator's GS",
     value(_W, "before_iret", b"")),
    ("steps take ticks", edit(_W.step, "if not weight:", "if False:")),
    ("steps are their site's start", edit(_W.step, "frozenset(lost), released", "frozenset(), 0")),
)  # fmt: skip

_SITE_FORMS: Final = _rows(
    "site forms",
    ("CLI leaves IF", edit(site_forms._cli, "_number(0)", "_number(1)")),
    ("STI leaves IF", edit(site_forms._sti, "_number(1)", "_number(0)")),
    ("PUSHF shows the real IF", edit(site_forms._pushf, "Memory(EAX, ECX, 1, 0)",
                                     "Memory(EAX, None, 1, 0)")),
    ("PUSHF shows IF as it likes", edit(site_forms._pushf, "Memory(ECX, EAX, 2, 0)",
                                        "Memory(ECX, None, 1, 0)")),
    ("POPF takes all flags", edit(site_forms._popf, 'flag_mask("tln")', "0")),
    ("POPF leaves IF",
     edit(site_forms._popf, '    code.do("setc", code.field(IF_FLAG))', "    pass")),
    ("IRET takes all flags", edit(site_forms.write_iret_to_ring_3, '"tlnv"', '"v"')),
    ("IRET's NT is not looked at", edit(site_forms.write_iret_to_ring_3, '"tlnv"', '"tlv"')),
    ("IRET's IF is not looked at",
     edit(site_forms.write_iret_to_ring_3, 'unusual | flag_mask("i") | ring', "unusual | ring")),
    ("IRET leaves IF", edit(site_forms.write_iret_to_ring_3,
     '    code.do("mov", code.field(IF_FLAG), _number(1), lost={flags})', "    pass")),
    ("IRET's flags are lost", edit(site_forms._iret, "code.hypercall(original, {Lost.FLAGS})",
                                   "code.hypercall(original)")),
    ("IRET's IF is lost where it faults", edit(site_forms.write_iret_to_ring_3,
     "code.step(original, {flags, Lost.IF}, weight=1)", "code.step(original, {flags}, weight=1)")),
)  # fmt: skip

_S: Final = stores
_STORES: Final = _rows(
    "stores",
    ("CS and GS can be adaptive",
     edit(_S.can_adapt, "to.effective_segment not in (CS, GS)", "True")),
    ("LOCK can be adaptive", edit(_S.can_adapt, "not instruction.prefixes.lock", "True"),
     "there is one processor"),
    ("16-bit addresses can be adaptive", edit(_S.can_adapt, " or to.address_size != 32", "")),
    ("any page is an alias's",
     edit(_S._Store._check_alias, 'self._unless("cmp", R_EAX, self._alias(PAGE_PART))', "pass")),
    ("any segment is an alias's",
     edit(_S._Store._check_alias,
          'self._unless("cmp", R_EAX, self._alias(SELECTOR_PART))', "pass")),
    ("entries with a shadow are stored to",
     edit(_S._Store._check_alias, 'self._unless("cmp", shadow, Immediate(0, 0))', "pass")),
    ("stores need not be aligned", edit(_S._Store._check_alias, "0xFFFF_F003", "0xFFFF_F000")),
    ("EAX is not restored", edit(_S._Store._store, "self._restore(EAX)", "pass")),
    ("the alias's number stays", edit(_S._Store._store, "self._restore(self._number)", "pass")),
    ("the pointer stays",
     edit(_S._Store._store, 'w.data += encoded("mov", pointer, w.field(field))',
                               'w.data += b"\\x66\\x90"')),
    ("the pointer is not lost behind", edit(_S._Store._store, "lost=frozenset({lost})", "")),
    ("flags of what moves are lost", edit(_S._Store._store,
     "self._instruction.row.body in _MOVES", "False")),
    ("flags of what computes are restored", edit(_S._Store._store,
     "self._instruction.row.body in _MOVES", "True")),
    ("OF is not restored", edit(_S._Store._restore_flags, "Immediate(127, 0)", "Immediate(0, 0)")),
    ("flags of the slow path are lost",
     edit(_S._Store._slow_path, "self._restore_flags()", "pass")),
    ("registers of the slow path are lost",
     edit(_S._Store._slow_path, "self._restore(number)", "pass")),
    ("patience does not end", edit(_S._Store._slow_path, '"jns"', '"jmp"'),
     _FASTER + "a store without use stays adaptive"),
    ("patience is not there", edit(_S._Store._slow_path, '"jns"', '"js"'),
     _FASTER + "a store reverts at once"),
    ("a store's EIP is behind it", edit(_S._Store._do, "lost=self._lost", "lost=()")),
)  # fmt: skip

_G: Final = gate
_GATE: Final = _rows(
    "gate",
    ("GS is any",
     edit(_G.build_gate, "    glue(CALL_OUT, *both)", "    glue(b'\\x66\\x90', *both)")),
    ("GS's half is left in the frame",
     edit(_G.build_gate, '    do("mov", _half(GS_HALF), Immediate(0, 0), lost=both)', "    pass")),
    ("the translator's half is left in the frame",
     edit(_G.build_gate, '    do("mov", _half(OWN_HALF), Immediate(0, 0))', "    pass")),
    ("EAX is lost", edit(_G.build_gate, "    glue(RESTORE_EAX, *both)", "    pass")),
    ("ECX is lost", edit(_G.build_gate, "    glue(RESTORE_ECX, Lost.ECX)", "    pass")),
    ("the exchange is not known of", edit(_G.build_gate, "    exchanging = True", "    pass")),
    ("an exit of the gate's has lost nothing", edit(_G.build_gate, "lost=frozenset(lost), ", "")),
)  # fmt: skip

_K: Final = check
_CHECK: Final = _rows(
    "check",
    ("differences are the same", edit(_K.write_check, "        glue(CALL_OUT, Lost.ECX)",
                                      "        glue(b'\\x66\\x90', Lost.ECX)")),
    ("the first piece is compared", edit(_K.write_check, "in _pieces(len(source)):",
                                         "in _pieces(len(source))[:1]:")),
    ("ECX is lost", edit(_K.write_check, "    glue(RESTORE_ECX, Lost.ECX)", "    pass")),
    ("ECX is not lost at a difference", edit(_K.write_check, "lost=frozenset(lost), ", "")),
    ("a check is no check", edit(_K.write_check, ", check=True", "")),
    ("stores do not end units", value(builder, "ends_checked", lambda instruction: False)),
    ("pieces are bytes", edit(_K._pieces, "(WORD, 2, 1)", "(1,)"),
     _FASTER + "it compares the same"),
)  # fmt: skip

_B: Final = builder
_BUILDER: Final = _rows(
    "builder",
    ("ring 3 fetches the kernel's pages", edit(_B.code_page, "user and ", "False and ")),
    ("CS does not end before an EIP", edit(_B.read_source, "eip > context.limit", "False")),
    ("CS does not end", edit(_B.read_source, "room = context.limit - eip + 1", "room = 1 << 32")),
    ("the next page is the one behind", edit(_B.read_source,
     "_read(vm, (linear + len(code)) & 0xFFFF_FFFF, MAXIMUM_LENGTH, context.user)",
     "(page + 1, vm.memory.read((page + 1) * PAGE, MAXIMUM_LENGTH))")),
    ("the next page is not looked at", edit(_B.read_source,
     "len(code) >= room or after is None", "True")),
    ("CS has no base", edit(_B.read_source, "context.base + eip", "eip")),
    ("units go on", value(_B, "ENDS", frozenset())),
    ("undecodable code is skipped", edit(_B._Build._translate, 'w.hypercall(b"")',
                                         'w.identical(b"\\x66\\x90")')),
    ("a unit lies in its first page",
     edit(_B._Build.finish, "crosses = self._size > len(source.code)",
                                           "crosses = False")),
    ("no unit is cut", edit(_B._Build._goes_on, "return not self._cut and", "return"),
     "the cache has room for them"),
    ("a unit begins before its check", edit(_B._Build.__init__,
     "write_check(w, eip, context.base + eip & FLAT_LIMIT, expected)",
     "(write_check(w, eip, context.base + eip & FLAT_LIMIT, expected),"
     " setattr(self, '_body', len(w.data)))")),
    ("adaptive stores are as before",
     edit(_B._Build._translate, "eip in self._adaptive and ", "False and "),
     _FASTER + "they fault"),
    ("ring 3 has adaptive stores",
     edit(_B._Build.__init__, "frozenset() if context.user else adaptive", "adaptive")),
    ("any store is adaptive", edit(_B._Build._translate, " and can_adapt(instruction)", "")),
)  # fmt: skip

_LAYOUT: Final = _rows(
    "layout",
    ("the area's segment reaches further",
     edit(layout.area_segment, "AREA_END - AREA - 1", "(1 << 32) - 1 - AREA"),
     "nothing in a translation reaches there"),
    ("the code's segment is read and written",
     edit(layout.code_segment, "segments.CODE | segments.GRANULARITY",
          "segments.CODE | segments.READABLE | segments.GRANULARITY")
     if hasattr(layout.segments, "READABLE") else
     edit(layout.code_segment, "segments.CODE |", "segments.CODE | segments.WRITABLE |"),
     "CS-relative operands call out"),
    ("NO_SELECTOR is one", value(layout, "NO_SELECTOR", 0)),
    ("words are the paravirtual kernel's", edit(layout.area_operand, "field.address - VCPU_PAGE",
                                                "field.address - VCPU_PAGE ^ 4")),
)  # fmt: skip

MUTANTS: Final[list[Mutant]] = [
    *_FORMS, *_TRANSFERS, *_SITE_FORMS, *_STORES, *_GATE, *_CHECK, *_BUILDER, *_LAYOUT,
]  # fmt: skip
