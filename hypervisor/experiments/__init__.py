"""What the laboratory is for: experiments on the machine and on the techniques (design, section 6).

`classify/` asks the bare core which instructions are safe, privileged, sensitive or unsafe.
observe.py says when two runs are equal, and lockstep.py finds the instruction behind a difference:
all that judges a technique rests on these two. fidelity.py runs guests under techniques with
them, compare.py says what techniques cost, and `tour/` shows what there is to see.
"""
