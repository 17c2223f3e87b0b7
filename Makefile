# The two commands: `make demo` and `make test`. Each sets up all it needs in .venv.
PYTHON ?= $(firstword $(foreach p,python3.11 python3,$(shell $(p) -c 'import sys; print("$(p)" if sys.version_info[:2] == (3, 11) else "")' 2>/dev/null)))
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

.PHONY: check-gpu demo demo-device field test test-arm quick check soak fuzz wheels clean

demo: $(READY)  ## Build EfficientNet-Lite0 for three targets, run each, ask one over HTTP
	@$(BIN)/python -m examples.demo

demo-device: $(READY)  ## A device behind a real ssh server gets four versions of a model: two are good, one answers wrongly, one crashes
	@$(BIN)/python -m examples.demo_device

field: $(READY)  ## Serve a bundle with its page at http://127.0.0.1:8000 while real photos come in, then blurred ones
	@$(BIN)/python -m examples.field

test: check  ## Everything; what failed beside others is told, and tried once more alone: a machine's load is no fault
	$(BIN)/python -m pytest -n 2 --dist loadfile || { test $$? = 1 && $(BIN)/python -m pytest --last-failed --maxfail 6; }

test-arm: $(READY)  ## Every engine's own wheel on emulated ARM and older x86 cores; then a table: core x engine x bundle
	$(BIN)/python -m pytest tests/arm -n 2 --dist loadfile

quick: $(READY)  ## The unit tests, under a minute
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

check: $(READY)  ## Style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(READY)  ## Ten minutes of mixed load on the server: right answers, all accounted for, no growth
	$(BIN)/python -m tests.soak --seconds 600 --rate 200

fuzz: $(READY)  ## Every parser and the live server, for as many SECONDS each
	FUZZ_SECONDS=$(or $(SECONDS),600) $(BIN)/python -m pytest tests/fuzz -x -q

check-gpu: $(READY)  ## What needs an NVIDIA GPU: right answers, then latency and throughput beside the bare engine
	@test ! -e /dev/nvidiactl || test -e $(VENV)/gpu/.ready || { echo "fetching onnxruntime-gpu and CUDA (2.5 GB)"; \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/gpu -r tests/gpu/requirements-cuda.txt \
		&& touch $(VENV)/gpu/.ready; }
	PYTHONPATH=$(VENV)/gpu $(BIN)/python -m pytest tests/gpu -q -rs
	PYTHONPATH=$(VENV)/gpu $(BIN)/python -m benchmarks.gpu

wheels: $(READY)  ## Wheels of both distributions, in dist/
	@rm -rf build runtime/build
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./runtime .

$(READY): requirements.txt pyproject.toml runtime/pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 here"; echo "hint:  apt install python3.11 python3.11-venv, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) (3.5 GB, some minutes)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { echo "hint:  apt install python3-venv"; rm -rf $(VENV); exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./runtime -e .
	@touch $(READY)

clean:  ## Remove what was made here; the caches stay
	rm -rf $(VENV) dist demo build *.egg-info runtime/*.egg-info
