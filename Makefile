# `make demo` and `make test` do all the set-up; a stamp in .venv says what has been done.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Without byte-compiling: Python does it at the first import, for the few modules that are imported.
PIP_INSTALL := -m pip install -q --disable-pip-version-check --no-compile
PINS := -c requirements/constraints.txt
CXX_FILES := $(sort $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh \
	tests/kernels/*.cpp tests/kernels/emulated/*.* tests/kernels/emulated/*/*.cuh))
WHEEL_BIN := $(CURDIR)/build/wheel-venv/bin

# torch is pinned and installed first: whatever needs it later takes this one. No build isolation:
# an isolated build would fetch a second torch.
BASE := numpy setuptools torch wheel
BUILD := ninja pybind11

.PHONY: help setup demo test lint format bench wheel wheel-test clean
.PHONY: gpu gpu-torch gpu-build gpu-test gpu-sanitize gpu-bench
.DELETE_ON_ERROR:

help:
	@echo "make demo [FASTCODEC_WEIGHTS=folder]   set up, encode and decode the bundled clip"
	@echo "make test [PYTEST_ARGS=...]            set up, run the tests"
	@echo "make lint | format | bench [BENCH_ARGS=...] | wheel | wheel-test | clean"
	@echo "make gpu PYTHON=python3                all that needs an NVIDIA GPU: build, tests, sanitizer, rows"

setup: $(VENV)/.built

demo: setup
	$(BIN)/fastcodec demo $(if $(FASTCODEC_WEIGHTS),--weights "$(FASTCODEC_WEIGHTS)") $(DEMO_ARGS)

test: setup $(VENV)/.test
	$(BIN)/pytest $(PYTEST_ARGS)

lint: setup $(VENV)/.lint
	@failed=; for check in "ruff check ." "ruff format --check ." mypy \
		"clang-format --dry-run --Werror $(CXX_FILES)"; do \
		echo "$${check%% csrc/*}"; $(BIN)/$$check || failed=1; done; test -z "$$failed"

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: setup $(VENV)/.test
	$(BIN)/python $(PIP_INSTALL) --no-deps -r requirements/peers.txt
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# On a machine with an NVIDIA GPU, as it is: no venv, nothing is installed. PYTHON is one whose torch
# sees the GPU and that has numpy, pybind11, ninja, pytest and hypothesis; nvcc is in PATH or CUDA_HOME.
# Every step is run whatever becomes of the others, and each is a target of its own.
IN_PLACE := PYTHONPATH="$(CURDIR)" $(PYTHON)

gpu: gpu-torch
	@failed=; for step in gpu-build gpu-test gpu-sanitize gpu-bench; do \
		echo "== $$step"; $(MAKE) --no-print-directory $$step || failed="$$failed $$step"; done; \
	if test -n "$$failed"; then echo "make gpu: failed:$$failed"; exit 1; fi

gpu-torch:
	@$(PYTHON) -c 'import torch; raise SystemExit(None if torch.cuda.is_available() else \
	"make gpu: torch " + torch.__version__ + " of $(PYTHON) sees no NVIDIA GPU; give one that does: make gpu PYTHON=...")'

gpu-build: gpu-torch
	FASTCODEC_CUDA=1 FASTCODEC_CUDA_ARCHS="$${FASTCODEC_CUDA_ARCHS:-$$($(PYTHON) -c \
	'import torch; a, b = torch.cuda.get_device_capability(); print(f"{a}{b}" + "a" * (a == 9))')}" \
	$(PYTHON) setup.py build_ext --inplace

gpu-test: gpu-torch
	$(IN_PLACE) -m pytest -m gpu tests/gpu tests/ops $(PYTEST_ARGS)

gpu-sanitize: gpu-torch
	$(IN_PLACE) -m benchmarks.gpu --sanitize

gpu-bench: gpu-torch
	$(IN_PLACE) -m benchmarks.gpu $(BENCH_ARGS)

wheel: $(VENV)/.base
	rm -rf build/lib* build/bdist* dist
	$(BIN)/python -m pip wheel -q --no-build-isolation --no-deps -w dist .
	@ls dist/*.whl

# The tests run on the installed wheel, in a venv of its own, from a folder where ./fastcodec is not.
wheel-test: wheel
	rm -rf build/wheel-venv
	$(PYTHON) -m venv build/wheel-venv
	$(WHEEL_BIN)/python $(PIP_INSTALL) $(PINS) $(BASE)
	$(WHEEL_BIN)/python $(PIP_INSTALL) $(PINS) "$$(echo dist/*.whl)[all]" -r requirements/test.txt
	$(WHEEL_BIN)/python $(PIP_INSTALL) --no-build-isolation --no-deps -r requirements/oracles.txt
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cd "$$folder" && \
	$(WHEEL_BIN)/python -c 'import fastcodec; print(fastcodec.__file__)' | grep wheel-venv && \
	$(WHEEL_BIN)/pytest -c $(CURDIR)/pyproject.toml --rootdir $(CURDIR) $(CURDIR)/tests $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) build dist fastcodec.egg-info fastcodec/*.so .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.base: requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the pinned set needs Python >= 3.11; set PYTHON")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) $(PINS) $(BASE) $(BUILD)
	@touch $@

$(VENV)/.built: $(VENV)/.base setup.py pyproject.toml $(shell find csrc)
	$(BIN)/python $(PIP_INSTALL) $(PINS) --no-build-isolation -e ".[all]"
	@touch $@

$(VENV)/.test: $(VENV)/.base requirements/test.txt requirements/oracles.txt
	$(BIN)/python $(PIP_INSTALL) $(PINS) -r requirements/test.txt
	$(BIN)/python $(PIP_INSTALL) --no-build-isolation --no-deps -r requirements/oracles.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.base
	$(BIN)/python $(PIP_INSTALL) $(PINS) clang-format mypy ruff
	@touch $@
