# Everything runs in one virtual environment, made on first use. PORT changes the demo. TRAIN=1 trains the demo's student
# for MINUTES, as does MINUTES on the command line, and a checkout without a released student. JOBS processes run the tests.
# pip reads its own variables: PIP_EXTRA_INDEX_URL may name an index of torch's CPU builds (see the README, Install).
PYTHON ?= python3
VENV ?= .venv
MINUTES ?= 6
PORT ?= 8080
TORCH ?= torch==2.13.0
JOBS ?= 2

RELEASED = $(wildcard models/drdecr-16/onnx/encoder.json)
ifneq ($(filter command line environment,$(origin MINUTES))$(if $(RELEASED),,none),)
TRAIN ?= 1
endif
# One directory is never begun in one way and continued in the other.
WORKDIR ?= $(if $(and $(TRAIN),$(RELEASED)),quickstart-trained,quickstart)

BIN = $(VENV)/bin
QUICKSTART = $(BIN)/drdecr quickstart --workdir $(WORKDIR) $(if $(TRAIN),--train --minutes $(MINUTES))
# What is imported is compiled then, and no more than that.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test lint audit lock bench clean

demo: $(VENV)/$(if $(TRAIN),.train,.demo)
	$(QUICKSTART) --port $(PORT)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/.dev
	$(BIN)/python .ci/audit.py

# What the serving image installs, in the newest versions that pyproject.toml allows.
lock: $(VENV)/.dev
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra demo --extra otel --extra pool --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet --upgrade --output-file requirements.lock

bench: $(VENV)/.train
	$(QUICKSTART) --no-serve
	$(BIN)/python benchmarks/encode_latency.py $(WORKDIR)/student
	$(BIN)/python benchmarks/http_latency.py --student $(WORKDIR)/student --snapshot $(WORKDIR)/snapshot
	$(BIN)/python benchmarks/http_load.py --student $(WORKDIR)/student --snapshot $(WORKDIR)/snapshot

clean:
	rm -rf $(VENV) $(if $(filter file,$(origin WORKDIR)),quickstart quickstart-trained,$(WORKDIR))

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	@echo "installing"
	$(PIP) -e '.[cpu,demo]'
	@touch $@

# torch first and alone, in one version: what is installed after it keeps this build.
$(VENV)/.train: pyproject.toml | $(VENV)/.made
	@echo "installing (some minutes the first time)"
	$(PIP) $(TORCH)
	$(PIP) -e '.[cpu,train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(PIP) -e '.[cpu,train,dev]'
	@touch $@
