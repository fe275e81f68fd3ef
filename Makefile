# Every target installs what it needs into .venv first; a second call finds it done. `make demo` from nothing is the start.
PYTHON ?= python3
BACKEND ?= local
PYTEST_ARGS ?=
PARALLEL ?= 2
BENCH_ARGS ?=
SOAK ?= 600
SEEDS ?= 5000
KILL9_ARGS ?=
CONFORMANCE_ARGS ?=
MUTANTS_ARGS ?=

RUN := .venv/bin/python
INSTALL := $(PYTHON) install.py

.DEFAULT_GOAL := help
.PHONY: help venv demo test check format examples bench rules docs conformance soak kill9 mutants progression wheel-test clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo "Variables: PYTHON=python3.12 BACKEND=local|process|redis|ray PYTEST_ARGS='-k name' BENCH_ARGS='chain --json'"

venv:  ## .venv with everything the other targets need
	@$(INSTALL) all

demo:  ## a census of this Python's standard library, counted by a dataflow (BACKEND=local|process|redis|ray)
	@$(INSTALL) demo --backend $(BACKEND)
	@$(RUN) -m sage_actor demo --backend $(BACKEND)

test:  ## the test suite and the doctests, in PARALLEL=2 processes
	@$(INSTALL) test
	@$(RUN) -m pytest -m "not slow" -n $(PARALLEL) --dist loadgroup $(PYTEST_ARGS)

check:  ## what CI runs beside the tests: format, lint, both type checkers, layers, rules
	@$(INSTALL) check
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pyright --warnings
	@$(RUN) tests/rules.py --quiet
	@$(RUN) -m pytest -q tests/test_architecture.py tests/typing $(PYTEST_ARGS)

format:  ## let ruff rewrite what it can
	@$(INSTALL) check
	$(RUN) -m ruff check --fix-only .
	$(RUN) -m ruff format .

examples:  ## run every program under examples/
	@$(INSTALL) test
	@$(RUN) tests/run_examples.py

bench:  ## the performance table: floor, peer and ours from one run
	@$(INSTALL) bench
	@$(RUN) -m benchmarks $(if $(BENCH_ARGS),$(BENCH_ARGS),all)

rules:  ## the rules of the semantics and the tests that hold us to them
	@$(INSTALL) test
	@$(RUN) tests/rules.py

docs:  ## run every program and check every reference in README.md, docs/ and the docstrings
	@$(INSTALL) test
	@$(RUN) -m pytest -q tests/test_docs.py sage_actor $(PYTEST_ARGS)

conformance:  ## the rules for backends, over each that is here: a table, rule by backend
	@$(INSTALL) test
	@$(RUN) tests/backends/conformance_table.py $(CONFORMANCE_ARGS)

soak:  ## ten minutes of random load on the actor system (SOAK=20 for seconds)
	@$(INSTALL) test
	@$(RUN) tests/soak.py --seconds $(SOAK)

# All cases unless BACKEND was given: the default above is for the demo.
kill9:  ## real processes killed with -9 at named points and at random: lost, duplicated, disordered (BACKEND=local|process|redis|ray)
	@$(INSTALL) test
	@$(RUN) tests/kill9/run.py $(if $(filter-out file,$(origin BACKEND)),--backend $(BACKEND)) $(KILL9_ARGS)

mutants:  ## faults planted in the engine, and the seed at which the simulation finds each
	@$(INSTALL) test
	@$(RUN) tests/mutants.py $(MUTANTS_ARGS)

progression:  ## five thousand simulated crashes: lost, duplicated, disordered (SEEDS=5000)
	@$(INSTALL) test
	@$(RUN) tests/simulation/progression.py --seeds $(SEEDS)

wheel-test:  ## sdist, wheel from the sdist, a bare environment, another folder
	@$(INSTALL) test
	@$(RUN) -m pytest -m slow tests/test_packaging.py $(PYTEST_ARGS)

clean:  ## remove everything that is built, .venv included
	rm -rf .venv build dist *.egg-info sage_actor/build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f sage_actor/_core/*.so sage_actor/_core/*.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
