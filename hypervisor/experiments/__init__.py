"""What the laboratory is for: experiments on the machine, each a module and a command.

`classify/` asks the bare core which instructions are safe, privileged, sensitive or unsafe.
"""
