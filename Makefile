# Everything here sets itself up in .venv; a second run reuses it. Needs Python 3.10 or newer, git and make.
#   make demo                     render the demo portrait and speech to out/demo.mp4
#   make test                     all tests; the host and browser suites run where a ComfyUI is found
#   make fuzz                     new odd files and texts for every reader, FUZZ_CASES=100000 of them
#   make check                    ruff, format, pyright and the unit tests (what pre-commit runs)
#   make test-oldest test-newest  unit tests and the demo with the lowest and the highest versions allowed
# Choices: PYTHON=/path/to/python3.12  TORCH="torch==2.13.0"  COMFYUI_PATH=/path/to/ComfyUI  DEMO_ARGS="--steps 8"

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$python && break; done)
TORCH ?=
PYTEST_ARGS ?=
# Two processes at least halve the time: nearly every test computes on one thread (tests/conftest.py).
PARALLEL := -n auto --maxprocesses 4
FUZZ_CASES ?= 100000
DEMO_ARGS ?=
BENCH_ARGS ?= --quick

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
CAN_RENDER := $(VENV)/.can-render
CAN_TEST := $(VENV)/.can-test
SETUP = "$(PYTHON)" teacache_memo.py setup $(if $(TORCH),--torch "$(TORCH)")

# $(call timed,name,command): runs the command and prints how long it took, also when it fails.
define timed
	@start=$$(date +%s); status=0; { $(2); } || status=$$?; \
	echo "$(1): $$(( $$(date +%s) - start )) s"; exit $$status
endef

.PHONY: demo test test-oldest test-newest check fuzz parity host browser bench locales fix setup clean python
.DEFAULT_GOAL := test

demo: $(CAN_RENDER)
	@mkdir -p out
	$(call timed,make demo,$(VENV_PYTHON) teacache_memo.py --image demo/portrait.png --audio demo/speech.wav --output out/demo.mp4 $(DEMO_ARGS))

test: $(CAN_TEST)
	$(call timed,make test,$(VENV_PYTHON) -m pytest $(PARALLEL) $(PYTEST_ARGS))

check: $(CAN_TEST)
	$(call timed,make check,\
	$(VENV_PYTHON) -m ruff check . \
	&& $(VENV_PYTHON) -m ruff format --check . \
	&& $(VENV_PYTHON) -m pyright \
	&& $(VENV_PYTHON) -m pytest tests/unit -m "not slow" $(PARALLEL) $(PYTEST_ARGS))

fuzz: $(CAN_TEST)
	$(call timed,make fuzz,FUZZ_CASES=$(FUZZ_CASES) $(VENV_PYTHON) -m pytest tests/fuzz -s $(PYTEST_ARGS))

parity: $(CAN_TEST)
	$(call timed,make parity,$(VENV_PYTHON) tests/parity/check.py $(dir $(wildcard tests/goldens/*/run.json)))

host: $(CAN_TEST)
	$(call timed,make host,$(VENV_PYTHON) -m pytest tests/host $(PYTEST_ARGS))

browser: $(CAN_TEST)
	$(call timed,make browser,$(VENV_PYTHON) -m pytest tests/browser $(PYTEST_ARGS))

bench: $(CAN_RENDER)
	$(call timed,make bench,$(VENV_PYTHON) -m benchmarks.flops && $(VENV_PYTHON) -m benchmarks.caching $(BENCH_ARGS))

test-oldest: python
	"$(PYTHON)" .ci/versions.py oldest "$(PYTHON)"
	"$(PYTHON)" .ci/versions.py comfyui "$(PYTHON)"

test-newest: python
	"$(PYTHON)" .ci/versions.py newest "$(PYTHON)"

locales: $(CAN_TEST)
	WRITE_LOCALES=1 $(VENV_PYTHON) -m pytest tests/host/test_locales.py $(PYTEST_ARGS)

fix: $(CAN_TEST)
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

setup: $(CAN_TEST)

clean:
	rm -rf $(VENV) out *.egg-info .pytest_cache .ruff_cache

# --- set-up: the stamps are newer than pyproject.toml when .venv holds what it asks for ---

$(CAN_RENDER): pyproject.toml | python
	@$(SETUP)
	@touch $@

$(CAN_TEST): pyproject.toml | python
	@$(SETUP) --tests
	@touch $(CAN_RENDER) $@

python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer was expected but none was found on PATH." \
	"Run: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
