"""`python -m hypervisor` is `seventeen`."""

from hypervisor.cli import main

if __name__ == "__main__":
    main()
