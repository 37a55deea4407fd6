# Needs only make, git and Python 3.11 or newer: each target sets up what it uses, once, in .venv.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH ?=
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo quick test test-long test-all-pythons lint types check bench bench-quick reference wheelhouse clean
.NOTPARALLEL:

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile
	@echo 'Another Python: make PYTHON=python3.12 test. Some of the tests: make test PYTEST_ARGS="-k NAME".'
	@echo 'When .venv is broken or of another Python: make clean, and again.'

demo: .venv/installed  ## archive a small made-up observation to stand-in disks under demo/
	@$(PY) examples/make_demo.py

quick: .venv/installed-test  ## run the unit tests alone, in less than a minute
	@$(PY) -m pytest -n auto $(PYTEST_ARGS) tests/unit

# With arguments, only what they select is run: they may name files, or leave no unit test over.
test: .venv/installed-test  ## run the unit tests, then all others; as root also those on loop-mounted disks
ifeq ($(PYTEST_ARGS),)
	@$(PY) -m pytest -n auto tests/unit
	@$(PY) -m pytest -n auto --dist loadgroup -m 'not long and not install' --ignore tests/unit
else
	@$(PY) -m pytest -n auto --dist loadgroup -m 'not long and not install' $(PYTEST_ARGS)
endif

test-long: .venv/installed-test  ## as root: every fault, kill and power cut, for an hour; POLE_SEED=… repeats one
	@$(PY) -m pytest -n auto --dist loadgroup -m long -rP $(PYTEST_ARGS)

test-all-pythons: .venv/installed-test  ## built and installed in clean environments, with each Python that is here
	@$(PY) -m pytest -n auto -m install $(PYTEST_ARGS)

lint: .venv/installed-test  ## formatting and ruff's checks
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

types: .venv/installed-test  ## mypy, strict
	@$(PY) -m mypy

check: lint types test  ## lint, types and test

bench: .venv/installed-bench  ## as root: how fast it is, into docs/performance.md; about an hour
	@$(PY) -m benchmarks $(BENCH)

bench-quick: .venv/installed-bench  ## as root: the same with a tenth of the data; it writes nothing
	@$(PY) -m benchmarks --quick $(BENCH)

reference: .venv/installed-test  ## write the parts of docs/reference.md that are made from the code
	@$(PY) -m tests.helpers.reference

wheelhouse: .venv/made  ## all that an installation without network needs, into wheelhouse/
	@rm -rf wheelhouse
	@$(PY) -m pip wheel --quiet --disable-pip-version-check --wheel-dir wheelhouse '.[page]'

clean:  ## remove .venv, demo/ and everything else that make has made
	rm -rf .venv demo build dist wheelhouse *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is touched only after its step went through, so an interrupted set-up is done again.
.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Python 3.11 or newer is needed; "$(PYTHON)" is not. Name one: make PYTHON=python3.12 …' >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo '"$(PYTHON)" cannot make a virtual environment. Debian, Ubuntu: apt install python3-venv' >&2; \
	  echo '(for a Python beside the system one, e.g. python3.12-venv). Then call make again.' >&2; \
	  exit 1; }
	@echo 'Setting up .venv (once; this needs the network) …'
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(PIP) 'pip>=21.3'
	@touch $@

.venv/installed: .venv/made setup.cfg pyproject.toml
	@$(PIP) -e .
	@touch $@

.venv/installed-test: .venv/made setup.cfg pyproject.toml
	@echo 'Installing the package and its test tools …'
	@$(PIP) -e '.[test]'
	@touch .venv/installed $@

.venv/installed-bench: .venv/installed-test
	@$(PIP) -e '.[bench]'
	@touch $@
