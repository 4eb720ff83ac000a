# One line a target; the logic is Python. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# PyPI's plain torch is a CUDA build on Linux; the lock pins its version and nothing of its build.
.DEFAULT_GOAL := help
.PHONY: help setup sft rl dpo eval bench test test-slow check format lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("agapo needs Python 3.11 or newer; set PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	$(BIN)/python -m agapo.sandbox
	touch $@

setup: .venv/.ready  ## Prepare .venv

sft: setup  ## Fine-tune (RECIPE=recipes/sft/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo sft $(or $(RECIPE),recipes/sft/tiny.yaml) $(ARGS)

rl: setup  ## Reinforce with AGAPO (RECIPE=recipes/rl/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo rl $(or $(RECIPE),recipes/rl/tiny.yaml) $(ARGS)

dpo: setup  ## Learn preferences with SimPER (RECIPE=recipes/dpo/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo dpo $(or $(RECIPE),recipes/dpo/tiny.yaml) $(ARGS)

eval: setup  ## Evaluate a model (RECIPE=recipes/eval/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo eval $(or $(RECIPE),recipes/eval/tiny.yaml) $(ARGS)

bench: setup  ## Time this loop beside TRL's GRPOTrainer
	$(BIN)/agapo sft recipes/sft/tiny.yaml && $(BIN)/python -m benchmarks.trl_step $(ARGS)

test: setup  ## Run the tests
	$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile -m "not slow")

test-slow: setup  ## Run the long ones: killed processes, attacks on the sandbox, whole runs in other layouts
	$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile -m slow)

check: setup  ## Lint, format check, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

format: setup  ## Format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: setup  ## Write the installed versions to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE "^(nvidia|triton|cuda)" | sed -E "s/^(torch==[0-9.]+)\+.*/\1/" > requirements.lock

clean:  ## Remove .venv and caches (outputs/ stays)
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
