"""Which instructions are safe, privileged, sensitive, unsafe: decided by experiment on the core.

The words are those of a virtualization course. An instruction is *privileged* if it traps above
CPL 0 and does not at CPL 0; *sensitive* if it changes the machine's configuration (control), or if
what it does depends on the ring or on where things lie (behaviour); *unsafe* if it is sensitive
and not privileged; *safe* otherwise. Popek and Goldberg (1974) define them for one mode bit and
one relocation register; here mode is the CPL, location is page frames and table bases, and
configuration includes I/O and interrupts, after N. Penneman, D. Kudinskas, A. Rawsthorne, B. De
Sutter and K. De Bosschere, "Formal virtualization requirements for the ARM architecture" (2013).

How: every row of the table is run, one instruction at a time, in pairs of states that differ only
in what a guest must not notice. The table's class columns are not read; only check.py compares
them with what was found. Modules, in reading order: states.py (a state, and one instruction run in
it), cases.py (what is run), differences.py (two outcomes, held against each other), verdicts.py
(the experiment), witness.py (the smallest pair, as a sentence), survey.py (all of it together),
theorems.py, check.py, report.py, html.py, venn.py.
"""

from __future__ import annotations

from hypervisor.experiments.classify.survey import Finding, Survey, classify

__all__ = ["Finding", "Survey", "classify"]
