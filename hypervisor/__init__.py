"""The top layer: ring 0, in Python, and what a person starts.

A virtual machine (vm.py) is the bare machine of emulator/ with a virtual CPU, on a host (host.py)
that several can share. world.py switches between the virtual CPU and the real one, exits.py says
who serves what the real one cannot do. Two choices are free: how a guest's kernel runs
(techniques/) and how its memory is translated (memory/). experiments/ judges them, cli/ is the
command line. Read vm.py next.
"""

__version__ = "0.1.0"
