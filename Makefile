# `make demo` runs everything once; `make test` tests everything. Both set up what they need, once.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
OUT ?= build/bake
JOBS ?= 2
# 1: a few rounds of each torture and simulation; 10: all that the weekly workflow runs
DEPTH ?= 1
export DEPTH
# A cache inside the template's folder would go into every generated project.
export PYTHONDONTWRITEBYTECODE := 1
unexport VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick sizes lint format bake upgrade bench-bake clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup:
	@command -v $(PYTHON) >/dev/null || { echo "error: Python 3.11 or newer is needed, and $(PYTHON) was not found" >&2; exit 1; }
	@$(PYTHON) scripts/setup.py

demo: setup  ## generate a project in build/demo, run its pipeline, serve, ask, monitor, report
	@$(PY) scripts/demo.py

test: setup  ## the tests of a change, in JOBS=2 processes; ALL=1 for every one
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(if $(ALL),,-m "not deep")

sizes: setup  ## mass, density, floors and times, beside those of November 2026
	@$(PY) scripts/sizes.py

quick: setup  ## the tests that install nothing: under two minutes
	@$(PY) -m pytest -n $(JOBS) --dist loadfile -m "not slow and not deep"

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

upgrade: setup  ## bring a project of version 0.1.0 over to this one: PROJECT=path
	@$(PY) scripts/upgrade.py "$(PROJECT)"

bench-bake: setup  ## time to generate a project
	@$(PY) benchmarks/bake.py

bench-%: setup  ## speed of a part of a project: train, start, stream, data, serve, gpu; PROJECT=path, TASK, OVERRIDES
	@$(PY) scripts/bench.py $* $(OVERRIDES)

clean:  ## remove what demo, test and bake have made
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
