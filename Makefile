# make run     start: with RUNPOD_API_KEY and pod_config.json the real thing, else the demo
# make test    the whole suite but the long tests
# Everything happens in .venv; PYTHON=/path/to/python3 chooses what it is made from.

PYTHON ?=
RUN_ARGS ?=
TEST_ARGS ?=
PY := .venv/bin/python
INSTALL := PYTHON="$(PYTHON)" scripts/install

.DEFAULT_GOAL := help
.PHONY: help install run test test-real test-long fuzz cover check lock clean

help:
	@echo "make install    make .venv with the hash-locked packages for running and development"
	@echo "make run        start and stay in the foreground; Ctrl-C cleans up   (YES=1: do not ask, RUN_ARGS='…')"
	@echo "make test       the test suite                                       (TEST_ARGS='-k cache -x')"
	@echo "make test-real  what needs real programs: containers, SLURM, vLLM and others; installs what it can (3.4 GB)"
	@echo "make test-long  the tests that take minutes: kill moments, random worlds, a million requests"
	@echo "make fuzz       of these the fuzz alone: a million raw inputs, and the parsers with 200,000 each"
	@echo "make cover      the test suite with branch coverage"
	@echo "make check      format, lint, types, layers, ceilings, tests: the one command that decides"
	@echo "make lock       pin the packages anew                                (scripts/lock --upgrade: newest)"
	@echo "make clean      remove .venv, caches and build results"

.venv/.run-installed: requirements.lock
	@$(INSTALL) run

.venv/.dev-installed: requirements-dev.lock
	@$(INSTALL) dev

install: .venv/.dev-installed
	@echo "Ready: $$($(PY) --version) in .venv"

run: .venv/.run-installed
	@exec $(PY) manage_pod.py run $(if $(filter 1 y yes true,$(YES)),--yes) $(RUN_ARGS)

test: .venv/.dev-installed
	@exec $(PY) -m pytest -q -n auto $(TEST_ARGS)

# one after the other: each starts daemons of its own; -rs names what was missing
test-real: .venv/.dev-installed
	@scripts/components --all
	@PATH="$$PATH:/usr/sbin:/sbin" exec $(PY) -m pytest -q -m component -rs $(TEST_ARGS)

# -m on the command line replaces the one of pyproject.toml; -rA names each test with its own count
test-long: .venv/.dev-installed
	@exec $(PY) -m pytest -m long --timeout=3600 --durations=0 -rA $(TEST_ARGS)

fuzz: .venv/.dev-installed
	@exec $(PY) -m pytest -m long --timeout=3600 --durations=0 -rA tests/fuzz $(TEST_ARGS)

cover: .venv/.dev-installed
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest -q $(TEST_ARGS)
	@$(PY) -m coverage combine -q
	@exec $(PY) -m coverage report

check: .venv/.dev-installed
	@exec scripts/check

lock: .venv/.dev-installed
	@exec scripts/lock

clean:
	@rm -rf .venv .components .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
