# Two commands are all a clone needs: `make demo` and `make test`. Both set up .venv first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON_IN_VENV := env -u PYTHONDONTWRITEBYTECODE .venv/bin/python

.PHONY: help setup demo demo-wide test check check-types check-rules bench up down lock docs

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## Make .venv from the lock file
	@.ci/setup

demo: setup ## Run the nightly pipeline on pools of this machine; ARGS=--keep leaves the UI up
	@$(PYTHON_IN_VENV) -m spillway.demo $(ARGS)

demo-wide: setup ## The same over this machine, a Ray cluster and, where it is installed, a Slurm cluster
	@$(PYTHON_IN_VENV) -m spillway.demo --wide $(ARGS)

test: setup ## Run the tests; ARGS goes to pytest
ifdef ARGS
	@$(PYTHON_IN_VENV) -m pytest $(ARGS)
else
	@$(PYTHON_IN_VENV) -m pytest --numprocesses 3 --no-loadscope-reorder
endif

check: check-types check-rules ## Run every check that is not a test: style, types, import rules, spelling; -j2 does two at once

check-types: setup
	@.venv/bin/mypy

check-rules: setup
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/pyright --pythonpath .venv/bin/python
	@.venv/bin/lint-imports
	@.venv/bin/codespell include dags plugins tests docs README.md
	@.venv/bin/validate-pyproject pyproject.toml

bench: setup ## Run the benchmarks under tests/bench; writes build/bench.json
	@$(PYTHON_IN_VENV) tests/bench/run.py $(ARGS)

docs: setup ## Write anew what the docs take from the code
	@$(PYTHON_IN_VENV) -m spillway.catalog.pools_file
	@$(PYTHON_IN_VENV) -m spillway.placement.lifecycle --write

up: ## Start the grown-up deployment with Docker Compose
	docker compose up --build --detach --wait

down: ## Stop it; its volumes stay
	docker compose down

lock: ## Resolve the lock file anew
	@.ci/lock.sh
