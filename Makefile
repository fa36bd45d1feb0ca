# Everything a person types. `make` alone lists it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup retrain test test-fast test-long check lock drill bench pack up down doctor clean packages

# Another Python than the first that fits: make setup PYTHON=/path/to/python3.12
PYTHON ?=
# make setup GPU=1 for NVIDIA GPUs, remembered until GPU=0
GPU ?=
# Options of a flow, or of pytest: make retrain ARGS="--source my.csv --label churned"
ARGS ?=

export PYTHON
DEVICE := $(if $(filter 1,$(GPU)),--gpu,$(if $(filter 0,$(GPU)),--cpu))
BIN := .venv/bin
# Files go to two workers in the order of tests/conftest.py, not by their number of tests.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
FAST := not spark and not horovod and not slow and not long and not browser and not gpu
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-16s %s\n' "$$name" "$$text"; done

setup: ## Install everything into .venv and build Horovod; quick when nothing changed
	@scripts/setup.sh $(DEVICE)

packages:
	@scripts/setup.sh --packages

retrain: setup ## Set up, then run the main job (ARGS="--help" lists its options)
	@$(BIN)/python -m flows.retrain $(ARGS)

test: setup ## Set up, then run the tests (15 minutes at most)
	@$(BIN)/python -m pytest $(TWO) -m "not long" $(ARGS)

test-long: setup ## Run the tests that `make test` leaves out: further whole runs of flows, matrices
	@$(BIN)/python -m pytest $(TWO) -m long $(ARGS)

test-fast: packages ## Run the tests that need neither Java nor TensorFlow
	@$(BIN)/python -m pytest $(TWO) -m "$(FAST)" $(ARGS)

check: packages ## Lint, format, types and import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock: ## Resolve requirements/*.in anew into pinned and hashed requirements/*.txt
	@scripts/setup.sh --installer
	@cd requirements && for name in bootstrap build runtime dev gpu; do \
		echo "locking $$name.txt"; ../$(LOCK) $(ARGS) -o $$name.txt $$name.in || exit 1; done

drill: setup ## Kill the main job at every border and inside every write, and see that it recovers (40 minutes)
	@$(BIN)/python -m flows.retrain drill $(ARGS)

bench: setup ## Measure against the peers: ONLY=B1, SIZE=smoke or full
	@$(BIN)/python -m bench.run $(if $(ONLY),--only $(ONLY)) --size $(or $(SIZE),smoke)

pack: setup ## Build the environment that executors and ranks need on other machines: build/environment.tar.gz
	@$(BIN)/python scripts/pack.py $(ARGS)

up: setup ## Start a Prefect server, an MLflow server and a worker on this machine
	@$(BIN)/python -m ml_platform up $(ARGS)

down: ## End what `make up` started
	@$(BIN)/python -m ml_platform down

doctor: packages ## Say what fits, what is missing and what would block a run
	@$(BIN)/python -m ml_platform doctor $(ARGS)

clean: ## Remove the environment and caches of tools; runs, data and Horovod's builds stay
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
