# `make` or `make help` prints the lines below that have two hashes.
# Python 3.11 or newer, git and make are all that a fresh machine needs.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PRESET ?=
TORCH_INDEX ?=
JOBS ?= 2
SWEEP ?= sweep
UI_PORT ?= 5000
DASHBOARD_PORT ?= 8081
TORCH := $(shell grep '^torch==' constraints.txt)
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help repro ui test sweep dashboard lint types check docs demo-data demo-model bench bench-gpu pull install install-dev install-docs

help:
	@awk -F ' *## ' '/^[a-z-]+:.*## / {split($$1, name, ":"); printf "make %-14s %s\n", name[1], $$2} /^## / {print substr($$0, 4)}' Makefile

repro: pull  ## run the study and say what it found (PRESET=NAME: that of presets/NAME.yaml)
	@sae-transfer run $(PRESET)
	@echo "make ui shows every run in MLflow."

ui: install  ## show the runs in MLflow (UI_PORT=5000)
	@sae-transfer ui --port $(UI_PORT)

sweep: install  ## tune the probes (JOBS=2 processes, MAX_TRIALS=100, SWEEP=sweep, LIKE=PRESET)
	sae-transfer sweep --name $(SWEEP) --jobs $(JOBS) $(if $(MAX_TRIALS),--max-trials $(MAX_TRIALS)) $(if $(LIKE),--like $(LIKE))

dashboard: install  ## look at a sweep in the browser (SWEEP=sweep, DASHBOARD_PORT=8081)
	sae-transfer dashboard --name $(SWEEP) --port $(DASHBOARD_PORT)

# Two processes share the tests (pyproject.toml), with one BLAS thread each.
test: install-dev pull  ## run the tests
	OMP_NUM_THREADS=1 pytest

check: lint types test  ## lint, types and tests: what must pass before a commit

lint: install-dev
	ruff check src tests benchmarks
	ruff format --check src tests benchmarks

types: install-dev
	mypy

# docs/results.md comes from the code; a test fails where the two differ. Without --strict, or with --quiet, mkdocs lets
# broken links pass.
docs: install-docs  ## build the documentation into site/
	@python -c 'from pathlib import Path; from sae_transfer.analyses.analysis_registry import TABLES; from sae_transfer.results.schema import markdown; Path("docs/results.md").write_text(markdown(TABLES.values()))'
	@NO_MKDOCS_2_WARNING=true mkdocs build --strict
	@echo "Open site/index.html in a browser."

demo-data: install  ## write the demo's datasets again
	sae-transfer data generate
	dvc commit --force data.dvc

demo-model: install  ## train the demo's model and SAEs again (40 minutes on two cores)
	python -m sae_transfer.demo.train

bench: install  ## measure what benchmarks/RESULTS.md says
	python benchmarks/search.py
	python benchmarks/coverage.py
	python benchmarks/resampling.py

bench-gpu: install  ## measure extraction on a CUDA device; nothing is downloaded
	python benchmarks/gpu_extract.py

pull: install
	dvc pull --quiet --remote demo data.dvc models.dvc

install: $(VENV)/.installed  ## set up .venv; the commands above do it too
install-dev: $(VENV)/.installed-dev
install-docs: $(VENV)/.installed-docs

## make TORCH_INDEX=URL ...  takes PyTorch from this package index: a CUDA or a CPU build of your choice
## make PYTHON=PATH ...      takes this Python

# PyTorch goes first and pinned: a bare request may bring gigabytes of another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install one, or say where it is: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@
