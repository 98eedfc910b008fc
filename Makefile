# `make demo` runs everything once; `make test` tests everything. Both set up what they need, once.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
OUT ?= build/bake
# A cache inside the template's folder would go into every generated project.
export PYTHONDONTWRITEBYTECODE := 1
unexport VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture quick lint format bake bench-bake clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup:
	@command -v $(PYTHON) >/dev/null || { echo "error: Python 3.11 or newer is needed, and $(PYTHON) was not found" >&2; exit 1; }
	@$(PYTHON) scripts/setup.py

demo: setup  ## generate a project in build/demo, run its pipeline, serve, ask, monitor, report
	@$(PY) scripts/demo.py

test: setup  ## all tests
	@$(PY) -m pytest

torture: setup  ## training killed at ten moments, not at a share of them
	@TORTURE=10 $(PY) -m pytest tests/test_torture.py

quick: setup  ## the tests that install nothing: under two minutes
	@$(PY) -m pytest -m "not slow"

lint: setup  ## style, types and workflows of the template itself
	@$(PY) -m ruff check --no-cache .
	@$(PY) -m ruff format --no-cache --check .
	@$(PY) -m mypy
	@$(BIN)/zizmor --offline --quiet .github "{{cookiecutter.project_slug}}/.github"

format: setup  ## put the template's own source into its style
	@$(PY) -m ruff check --no-cache --fix .
	@$(PY) -m ruff format --no-cache .

bake: setup  ## generate a project into OUT=build/bake, asking nothing
	@$(PY) -m cookiecutter --no-input --overwrite-if-exists --default-config --output-dir "$(OUT)" .

bench-bake: setup  ## time to generate a project
	@$(PY) benchmarks/bake.py

clean:  ## remove what demo, test and bake have made
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
