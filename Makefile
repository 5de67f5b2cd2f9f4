# The entry points to remember. Needs Python >= 3.11, make and git; everything else is installed into .venv.
.PHONY: demo setup test lint cluster bench engines clean
.DELETE_ON_ERROR:

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin

demo: setup  ## train five ways on this machine, compare, write report.html
	$(BIN)/scalelab demo

setup: .venv/.installed  ## make .venv with pinned packages; the program is then .venv/bin/scalelab

test: setup  ## every test; the skipped ones are listed with what is missing
	$(BIN)/python -m pytest

lint: setup  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

cluster: setup  ## a shell on the login machine of a test cluster: four hosts with ssh and Slurm; needs root
	@$(BIN)/python -m tests.cluster

bench: setup  ## scalelab against its peers; CIFAR10_DIR names the data
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-bench.lock
	$(BIN)/python benchmarks/trainer.py --data-dir "$(CIFAR10_DIR)" --write docs/benchmarks.md

engines: setup  ## the optional engines: DeepSpeed; Horovod is built from source once (minutes), its wheel kept in ~/.cache/scalelab
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --no-build-isolation -r requirements-deepspeed.lock
	UV="$(UV)" $(BIN)/python tools/build-horovod

clean:
	rm -rf .venv .uv

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.installed: requirements.lock pyproject.toml | $(if $(findstring .uv,$(UV)),.uv/bin/uv)
	@$(PYTHON) -c 'import sys; sys.exit("scalelab needs Python 3.11 or newer: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@
