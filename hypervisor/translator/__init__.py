"""The block-caching binary translator: guest kernel code, rewritten into code for ring 1.

Adams and Agesen, "A comparison of software and hardware techniques for x86 virtualization" (2006),
is the model. Read layout.py for where things lie, unit.py for what a translation is made of,
forms.py and transfers.py for what each instruction becomes, builder.py for how a unit is made,
cache.py for where units live and how they are chained, coherence.py for what ends them; then
hypervisor/techniques/translate.py, which puts them under a virtual machine.
"""
