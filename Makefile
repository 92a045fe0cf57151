# Every target sets up what it needs in .venv, from Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types format check bench docs build fuzz soak clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | sort | expand -t 16

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

install: $(READY) ## set up .venv

demo: $(READY) ## a guarded API, real servers, real circulations; SERVE=1 stays up
	@$(BIN)/python -m examples.demo $(if $(SERVE),--serve)

test: $(READY) ## all tests, on real servers
	@$(BIN)/python -m pytest $(ARGS)

lint: $(READY) ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	@$(BIN)/mypy

format: $(READY) ## write the code as ruff has it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: lint types test ## what a change has to pass

build: $(READY) ## wheel and sdist, tried alone
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . > /dev/null
	@$(BIN)/python -m tests.packaging dist

clean: ## remove what was made
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis htmlcov .coverage
