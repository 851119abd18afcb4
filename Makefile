# `make train` and `make test` work on a fresh machine with Python 3.11 or later; nothing is installed outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup train test test-cuda drill lint clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(READY)  ## create .venv and install the project with its development tools

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

train: $(READY)  ## teacher, student and table on the embedded digits (CPU, about a minute); ARGS="..." are overrides
	$(BIN)/python src/train.py $(ARGS)

test: $(READY)  ## all tests, one process a core; ARGS="..." are pytest's
	$(BIN)/python -m pytest -n auto $(ARGS)

test-cuda: $(READY)  ## the tests that need an NVIDIA GPU, which `make test` skips without one
	$(BIN)/python -m pytest -m cuda $(ARGS)

drill: $(READY)  ## kills, bad inputs, full disks, crowds, on the embedded digits: docs/reliability.md; ARGS="--kills 10"
	$(BIN)/python scripts/drill.py $(ARGS)

lint: $(READY)  ## ruff: rules and format; mypy: names, attributes and arguments
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove .venv and caches; outputs/ and data/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
	find src scripts tests -name __pycache__ -prune -exec rm -rf {} +
