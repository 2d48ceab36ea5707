"""The in-place patcher: unsafe instructions of a guest's kernel, overwritten where they stand.

Read scanner.py for how they are found, sites.py for what becomes of each, patches.py for how guest
memory is overwritten, and given back when the guest changes it; then techniques/patch.py. The code
that patches lead to is written by the translator's forms (hypervisor/translator/).
"""
