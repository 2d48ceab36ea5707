# make demo   build, guests, three stops of the tour, a small operating system, what it all costs
# make test   build and run the fast tests (3 to 4 minutes)
# make deep   all tests, with more examples, then the core's under the sanitizers (over an hour)
# make bench  time the workloads against silicon, QEMU and Unicorn
# make lint, format, reference, clean   see below
#
# All of it happens in .venv; SYSTEM_PYTHON says which Python to make it from.

SYSTEM_PYTHON ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
SEVENTEEN := $(VENV)/bin/seventeen
SOURCES := $(wildcard csrc/*.c csrc/*.h) $(shell find isa -name '*.py' -o -name '*.lark') \
	emulator/build_core.py setup.py pyproject.toml
PACKAGES := isa emulator guests hypervisor
C_FILES := $(wildcard csrc/*.[ch] tests/silicon/*.[ch] tests/bench/*.c tests/bench/*/*.[ch] \
	tests/ckernel/kernel/*.[ch])
PYTEST_ARGUMENTS ?=
REPORT := build/compare.html
# An editable install that puts this folder on Python's path, instead of a finder that takes 20 ms at
# every start. A pip too old for the option is tried without it.
QUICK_FINDER := --config-settings editable_mode=compat

.PHONY: demo test deep bench format lint reference clean build tools sanitized
.DELETE_ON_ERROR:

demo: build
	@for guest in hello life rings probe_popf; do \
		echo; echo "> seventeen run $$guest"; $(SEVENTEEN) run $$guest </dev/null || exit 1; \
	done
	@for stop in 1 3 6; do \
		echo; echo "> seventeen tour $$stop"; $(SEVENTEEN) tour $$stop || exit 1; \
	done
	@echo; echo "> seventeen run os < guests/input/os.txt"
	@$(SEVENTEEN) run os < guests/input/os.txt; status=$$?; \
	echo; echo "The shell was told to exit with 5: the exit status is $$status."; test $$status = 5
	@echo "Now try it yourself: $(SEVENTEEN) run os   (Ctrl-A X ends it)"
	@echo "The rest of the tour: $(SEVENTEEN) tour"
	@echo; echo "> seventeen compare --repeat 1 --html $(REPORT)"
	@mkdir -p $(dir $(REPORT))
	@$(SEVENTEEN) compare --repeat 1 --html $(REPORT)

test: build
	$(PYTHON) -m pytest -n auto $(PYTEST_ARGUMENTS)

deep: build
	SEVENTEEN_DEEP=1 $(PYTHON) -m pytest -m "deep or not deep" -n auto $(PYTEST_ARGUMENTS)
	$(MAKE) sanitized

# The core once more, in a copy of the sources, with assertions and sanitizers.
sanitized: build
	$(PYTHON) -m tests.core.sanitize $(PYTEST_ARGUMENTS)

bench: build
	$(PYTHON) -m tests.bench.main $(BENCH_ARGUMENTS)

# Bytecode is written here, for Python may have been told to write none (PYTHONDONTWRITEBYTECODE):
# without it every start takes 30 ms longer.
build: $(VENV)/built
	@$(PYTHON) -m compileall -q $(PACKAGES)

$(VENV)/built: $(SOURCES)
	@bash .ci/prerequisites $(SYSTEM_PYTHON)
	test -x $(PYTHON) || $(SYSTEM_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --editable '.[test]' $(QUICK_FINDER) || \
	$(PYTHON) -m pip install --quiet --editable '.[test]'
	touch $@

tools: build
	$(PYTHON) -m pip install --quiet --editable '.[dev]'

format: tools
	$(PYTHON) -m ruff check --fix --select I .
	$(PYTHON) -m ruff format .
	clang-format -i $(C_FILES)

lint: tools
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	clang-format --dry-run -Werror $(C_FILES)
	$(PYTHON) -m tests.style.compile_core gcc clang

reference: build
	$(PYTHON) -m isa.reference --write
	$(PYTHON) -m hypervisor.hypercalls --write

clean:
	rm -rf $(VENV) build dist *.egg-info emulator/_core*.so emulator/_core.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
