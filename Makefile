# Every target sets up what it needs and repeats only what has changed; `make help` lists them.
# It takes Python 3.11 or newer, a C and C++ compiler, make and git; everything else goes into .venv and a cache folder
# (GGUF_GOLF_CACHE, or the system's usual place).

.DEFAULT_GOAL := help

.DELETE_ON_ERROR:
.PHONY: help demo test test-metal lint fuzz bench docs wheel test-wheel hf setup dev runtime runtime-tools clean lock newest

# the first of these that is new enough; PYTHON=... chooses another
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV   := .venv
BIN    := $(VENV)/bin
GOLF   := $(BIN)/gguf-golf

# of pyproject.toml, for `make lock`
BUILD_REQUIRES := setuptools>=68
COMPILE        := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --python-version 3.11 \
	--custom-compile-command 'make lock'

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

demo: runtime ## quantize the embedded model to eleven types, measure them, write demo-out/report.html
	$(GOLF) demo

# ruff, mypy and typos run within pytest, so that one summary tells all
test: dev runtime-tools ## run the linters and all tests
	$(BIN)/pytest -n 2

# llama.cpp's own test of every operation
test-metal: setup ## on a Mac: our types on Metal against the CPU
	$(GOLF) runtime build --metal --tests
	tests=$$($(BIN)/python -c 'from gguf_golf.runtime import tool; print(tool("test-backend-ops"))') && \
	"$$tests" test -o MUL_MAT,MUL_MAT_ID,GET_ROWS,CPY -p tcq

lint: dev ## run the linters: ruff, mypy, typos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos

fuzz: dev runtime ## feed damaged files to every reader for MINUTES=30
	$(BIN)/python -m tests.fuzz.run --minutes $(or $(MINUTES),30)

docs: setup ## write the generated pages again: docs/cli.md
	$(BIN)/python -m gguf_golf.cli_reference > docs/cli.md.partial
	mv docs/cli.md.partial docs/cli.md

wheel: dev ## build two wheels in dist/: the pure one, and one that brings a portable runtime along
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m gguf_golf.runtime.binary_wheel "$$(ls -t dist/*-none-any.whl | head -n 1)"

test-wheel: wheel ## install the second one where there is no compiler, and go from a folder to an answer
	$(BIN)/python -m tests.try_binary_wheel "$$(ls -t dist/*linux*.whl | head -n 1)"

bench: runtime-tools ## measure every type and whole models on this CPU, into build/bench.json
	mkdir -p build
	$(GOLF) bench --models --json build/bench.json

runtime: setup ## build the patched llama.cpp
	$(GOLF) runtime build

runtime-tools: setup ## build its programs (llama-server, llama-quantize, ...) and its tests as well
	$(GOLF) runtime build --tools --tests

hf: dev ## install what `verify` and the architectures of llama.cpp's converter take: PyTorch's CPU build, transformers
	$(BIN)/python -m pip install --quiet --requirement requirements-hf.txt

setup: $(VENV)/installed ## install gguf-golf into .venv

dev: $(VENV)/installed-dev ## install what tests, linters and wheels take as well

# the package is installed editable, so only a change of its metadata asks for another pip run; Python compiles what it
# imports, pip would compile everything
$(VENV)/installed: setup.cfg pyproject.toml requirements.lock | $(VENV)/created
	@echo "installing gguf-golf and what it needs into $(VENV)"
	$(BIN)/python -m pip install --no-compile --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock | $(VENV)/installed
	@echo "installing what the tests and linters take into $(VENV)"
	$(BIN)/python -m pip install --no-compile --require-hashes --requirement requirements-dev.lock
	@touch $@

newest: setup ## try the patches on the newest llama.cpp of both packages, compile it, test its types
	$(BIN)/python patches/update.py llama-cpp-python --build
	$(BIN)/python patches/update.py xllamacpp --build

# development's first: what only it needs may hold back a version, and both are to have the same ones
lock: setup ## pin the newest versions of all that setup and dev install, with hashes, in the two locks
	$(BIN)/python -m pip install --quiet uv
	echo '$(BUILD_REQUIRES)' | $(COMPILE) --upgrade --extra dev setup.cfg - -o requirements-dev.lock
	echo '$(BUILD_REQUIRES)' | $(COMPILE) --upgrade --constraint requirements-dev.lock setup.cfg - -o requirements.lock

$(VENV)/created:
	@test -n "$(PYTHON)" || { echo "error: this needs Python 3.11 or newer with its venv module" \
		"(Debian, Ubuntu: apt install python3-venv; macOS: brew install python);" \
		"PYTHON=/path/to/python make ... names one that is not on PATH" >&2; exit 1; }
	@echo "creating $(VENV) with $(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	@touch $@

clean: ## delete .venv and everything built here; the cache folder stays
	rm -rf $(VENV) build *.egg-info
