# Everything runs in one virtual environment, made on first use. PORT and MINUTES change the demo.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= quickstart
MINUTES ?= 4.5
PORT ?= 8080
TORCH ?= torch==2.13.0

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint bench clean

demo: $(VENV)/.demo
	$(BIN)/drdecr quickstart --workdir $(WORKDIR) --minutes $(MINUTES) --port $(PORT)

test: $(VENV)/.dev
	OMP_NUM_THREADS=2 $(BIN)/pytest -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.demo
	$(BIN)/drdecr quickstart --workdir $(WORKDIR) --minutes $(MINUTES) --no-serve
	$(BIN)/python benchmarks/encode_latency.py $(WORKDIR)/student
	$(BIN)/python benchmarks/http_latency.py --student $(WORKDIR)/student --snapshot $(WORKDIR)/snapshot
	$(BIN)/python benchmarks/http_load.py --student $(WORKDIR)/student --snapshot $(WORKDIR)/snapshot

clean:
	rm -rf $(VENV) $(WORKDIR)

# torch first and alone: a range would take a build of several gigabytes on a machine without a GPU.
$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing (some minutes the first time)"
	$(PIP) $(TORCH)
	$(PIP) -e '.[cpu,train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e '.[cpu,train,dev]'
	@touch $@
