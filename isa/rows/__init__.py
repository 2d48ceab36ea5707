"""The rows of the instruction table, a module a subject; `isa/table.py` puts them together."""
