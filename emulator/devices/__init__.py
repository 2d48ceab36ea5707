"""The devices of the `pc` machine, one noun a file. Read device.py first: it is their contract."""
