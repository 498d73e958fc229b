# Two commands do everything on a fresh machine (Python 3.11 or newer, git and make): `make repro` and `make test`.
#   make repro                  run the study and say where to look
#   make repro PRESET=NAME      the same with presets/NAME.yaml as params.yaml
#   make test                   run the tests
#   make sweep                  tune the probes (JOBS=2 processes, MAX_TRIALS=100, STUDY=sweep, PRESET=name)
#   make dashboard              look at a sweep in the browser (STUDY=sweep, DASHBOARD_PORT=8081)
#   make ui                     show the runs in MLflow (UI_PORT=5000)
#   make TORCH_INDEX=URL ...    take PyTorch from this package index, for a CUDA or a CPU build of your choice
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PRESET ?=
TORCH_INDEX ?=
JOBS ?= 2
STUDY ?= sweep
UI_PORT ?= 5000
DASHBOARD_PORT ?= 8081
TORCH := $(shell grep '^torch==' constraints.txt)
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: repro ui test sweep dashboard lint types check docs demo-data demo-model bench bench-gpu pull install install-dev

repro: pull
	@sae-transfer run $(PRESET)
	@echo "make ui shows every run in MLflow."

ui: install
	@sae-transfer ui --port $(UI_PORT)

sweep: install
	sae-transfer sweep --study $(STUDY) --jobs $(JOBS) $(if $(MAX_TRIALS),--max-trials $(MAX_TRIALS)) $(if $(PRESET),--preset $(PRESET))

dashboard: install
	sae-transfer dashboard --study $(STUDY) --port $(DASHBOARD_PORT)

# Two processes share the tests (pyproject.toml), with one BLAS thread each.
test: install-dev pull
	OMP_NUM_THREADS=1 pytest

check: lint types test

lint: install-dev
	ruff check src tests benchmarks
	ruff format --check src tests benchmarks

types: install-dev
	mypy

# docs/results.md from the code; a test fails where the two differ.
docs: install
	@python -c 'from pathlib import Path; from sae_transfer.analyses.analysis_registry import TABLES; from sae_transfer.results.schema import markdown; Path("docs/results.md").write_text(markdown(TABLES.values()))'

demo-data: install
	sae-transfer data generate
	dvc commit --force data.dvc

demo-model: install
	python -m sae_transfer.demo.train

bench: install
	python benchmarks/search.py
	python benchmarks/coverage.py
	python benchmarks/resampling.py

# Needs a CUDA device; nothing is downloaded.
bench-gpu: install
	python benchmarks/gpu_extract.py

pull: install
	dvc pull --quiet --remote demo data.dvc models.dvc

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

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
