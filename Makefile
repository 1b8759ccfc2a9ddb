# One door to everything. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV ?= local
# Everything the local stack owns lives below this folder; `make clean` removes it.
ifndef LOCAL_PREFIX
LOCAL_PREFIX := $(shell scripts/local_prefix.sh)
endif
export LOCAL_PREFIX
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
PLAYBOOK = $(BIN)/ansible-playbook -i inventories/$(ENV)
# Empty is unset: else every Python process that is started would compile its modules anew, which takes it 2 s.
export PYTHONDONTWRITEBYTECODE :=
# The integration tests wait about as long as they compute. Each worker has servers of its own, so four are enough.
TEST_WORKERS ?= $(shell n=$$(nproc); echo $$((n < 3 ? n + 1 : 4)))
# Whatever hangs, even after the last test, ends with the stacks of all threads; the number of seconds follows.
PYTEST_WITHIN = timeout --foreground --signal=ABRT --kill-after=60

.PHONY: help setup wheels quickstart check lint test verify bench bench-service docs lock stop clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make the control node's virtual environment (.venv)

$(VENV)/.ready: requirements/uv.txt requirements/control.txt pyproject.toml backend/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make setup: $(PYTHON) is older than Python 3.11; install 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make setup: this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 3; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/control.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e backend
	@touch $@

# The distributions that the roles install on hosts. Hatchling's wheels are reproducible: same sources, same bytes.
WHEELS := dist/.built
wheels: $(WHEELS) ## Build the wheels that the roles install

$(WHEELS): $(VENV)/.ready pyproject.toml backend/pyproject.toml $(shell find scripts/chromactl backend/app -type f -not -path '*/__pycache__/*' 2>/dev/null)
	@rm -rf dist && $(BIN)/python -m build --no-isolation --wheel --outdir dist . >/dev/null
	@$(BIN)/python -m build --no-isolation --wheel --outdir dist backend >/dev/null
	@touch $@

quickstart: wheels ## Provision, migrate, cut over and verify a whole stack on this machine
	@$(PLAYBOOK) playbooks/quickstart.yml

verify: setup ## Check a running stack's promises (ENV=local)
	@$(PLAYBOOK) playbooks/verify.yml

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy scripts/chromactl backend/app tests bench docs plugins/modules
	@$(BIN)/yamllint --strict .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --strict -q

check: lint ## Lint, types, unit, policy and template tests; no Docker, no network
	@$(PYTEST_WITHIN) 1200 $(BIN)/python -X faulthandler -m pytest -q tests/unit tests/policy tests/templates backend/tests

test: check ## Everything: check, then the integration tests against real servers (TEST_WORKERS=0: in one process)
	@$(PYTEST_WITHIN) 3600 $(BIN)/python -X faulthandler -m pytest -q --numprocesses $(TEST_WORKERS) --dist worksteal --durations 10 tests/integration

bench: setup ## Measure a whole migration against bare inserts, into docs/ (BENCH_FLAGS=--large for a large one too)
	@$(BIN)/python bench/migrate.py --json docs/benchmarks.json --chart docs/benchmarks.svg \
	  --markdown docs/benchmarks.md $(BENCH_FLAGS)

bench-service: setup ## Measure the service: search, writes, backlog, rebuild, into docs/ (BENCH_FLAGS as of bench/service.py)
	@$(BIN)/python bench/service.py --json docs/benchmarks-service.json --markdown docs/benchmarks.md $(BENCH_FLAGS)

docs: setup ## Write the generated parts of the documentation again
	@$(BIN)/python docs/generate.py

lock: setup ## Compile the locks under requirements/ again
	@PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh $(LOCK_FLAGS)

stop: ## End the processes that the quickstart started
	@scripts/stop_local.sh "$(LOCAL_PREFIX)"

clean: ## Stop, then remove the local stack's folder and what was built
	@scripts/clean_local.sh "$(LOCAL_PREFIX)"
	@rm -rf dist
