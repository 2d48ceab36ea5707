"""The top layer: what a person starts, and the hypervisors that stand on the bare machine.

So far it is the command line (cli/) and what it needs to speak of a program by the names in its
source (elf.py, lines.py, symbols.py). Read cli/__init__.py next.
"""

__version__ = "0.1.0"
