# Every target does its own set-up: a machine needs Python 3.10 or newer, git, and for builds a compiler.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help repro test lint bench clean
help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "make %-8s %s\n", $$1, $$2}'

repro: $(VENV)/.tool  ## does ml-explore/mlx#3553 happen here, and how large is it? (ARGS="0.31.2 0.32.4 --rows 1-9")
	@$(BIN)/bisect_tool repro $(ARGS)

test: $(VENV)/.dev  ## the whole test suite, with real MLX wheels from the package index
	$(BIN)/pytest --numprocesses=2 $(ARGS)

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## what the program promises about its own speed, each a table
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/tool_cost.py
	$(BIN)/python benchmarks/build_cost.py
	$(BIN)/python benchmarks/verdicts.py
	$(BIN)/python benchmarks/diagnosis.py --series 200

clean:  ## remove the virtual environment and everything under builds/ (sessions too)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find builds -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 or newer on PATH; install one, or name it with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) -m venv failed; on Debian and Ubuntu: sudo apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'

$(VENV)/.tool: $(BIN)/uv pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.tool
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	@touch $@
