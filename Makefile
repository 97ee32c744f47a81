# demo, test, lint, bench: each sets up all that it needs, and does again only what has changed.
# It takes Python 3.11 or newer, a C and C++ compiler, make and git; everything else goes into .venv and a cache folder
# (GGUF_GOLF_CACHE, or the system's usual place).

.DELETE_ON_ERROR:
.PHONY: demo test test-metal lint bench setup runtime runtime-tools clean

# the first of these that is new enough; PYTHON=... chooses another
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV   := .venv
BIN    := $(VENV)/bin
GOLF   := $(BIN)/gguf-golf

demo: runtime
	$(GOLF) demo

# ruff and mypy run within pytest, so that one summary tells all
test: runtime-tools
	$(BIN)/pytest -n 2

# on a Mac: llama.cpp's own test of every operation, our types on Metal against the CPU
test-metal: setup
	$(GOLF) runtime build --metal --tests
	tests=$$($(BIN)/python -c 'from gguf_golf.runtime import tool; print(tool("test-backend-ops"))') && \
	"$$tests" test -o MUL_MAT,MUL_MAT_ID,GET_ROWS,CPY -p tcq

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: runtime-tools
	mkdir -p build
	$(GOLF) bench --models --json build/bench.json

runtime: setup
	$(GOLF) runtime build

runtime-tools: setup
	$(GOLF) runtime build --tools --tests

setup: $(VENV)/installed

# the package is installed editable, so only a change of its metadata asks for another pip run
$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/created
	@echo "installing gguf-golf and what it needs into $(VENV)"
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

$(VENV)/created:
	@test -n "$(PYTHON)" || { echo "error: this needs Python 3.11 or newer with its venv module" \
		"(Debian, Ubuntu: apt install python3-venv; macOS: brew install python);" \
		"PYTHON=/path/to/python make ... names one that is not on PATH" >&2; exit 1; }
	@echo "creating $(VENV) with $(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
