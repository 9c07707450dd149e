# Two virtual environments: .venv holds what a user gets (no torch), .venv-test what the tests need.
# A stamp in each says what was installed, so that the second run of a target starts at once.

PYTHON ?= python3
CKPT ?=
WORKERS ?= 2
FUZZ_SECONDS ?= 3600
FUZZ_TARGETS ?=

TEST := .venv-test/bin
PIP_FLAGS := --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(TEST)/python -m pytest -n $(WORKERS) --dist loadscope
export CKPT

.DEFAULT_GOAL := help
.PHONY: help demo test test-long check lint format docs bench bench-scanners fuzz clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1#\2/' | column -t -s '#' 2>/dev/null \
		|| grep -E '^[a-z-]+:.*## ' Makefile

demo: .venv/.installed  ## scan, inspect and convert examples/digits.pth, or CKPT=path/to/yours.pth
	@PATH="$(CURDIR)/.venv/bin:$$PATH" sh examples/demo.sh

test: .venv-test/.tests  ## install the test extras and run every test
	$(PYTEST)

test-long: .venv-test/.tests  ## the tests that take hours or hundreds of repetitions too
	$(PYTEST) -m "long or not long" --hypothesis-profile=long

check: lint docs  ## what CI runs: format, lint, types, import contracts, docs, then the tests
	$(PYTEST)

lint: .venv-test/.tools
	$(TEST)/ruff format --check .
	$(TEST)/ruff check .
	$(TEST)/mypy
	$(TEST)/lint-imports --no-cache

format: .venv-test/.tools  ## rewrite the sources as ruff likes them
	$(TEST)/ruff format .
	$(TEST)/ruff check --fix .

docs: .venv-test/.tools  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(TEST)/mkdocs build --strict

bench: .venv-test/.tests  ## measure every figure of the README beside its peers; results as JSON
	$(TEST)/python bench/run.py

bench-scanners: .venv-test/.tests  ## measure the scan beside the other scanners only (under 8 minutes)
	$(TEST)/python bench/run.py scanners

fuzz: .venv-test/.tests  ## each fuzzing target for FUZZ_SECONDS (an hour); what is found lies in fuzz-out/
	nice -n 19 $(TEST)/python tests/fuzz/campaign.py --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

clean:  ## remove both environments and everything that was built
	rm -rf .venv .venv-test demo-out fuzz-out site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A virtual environment of a Python that is new enough, or a sentence.
define make_venv
@found=$$($(PYTHON) --version 2>/dev/null) || found="not there"; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "tensorkeep needs Python 3.11 or newer, and '$(PYTHON)' is $$found." \
		"Name another: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; \
	exit 1; }
@test -x $(1)/bin/pip || $(PYTHON) -m venv $(1) || { \
	echo "'$(PYTHON)' cannot make a virtual environment." \
		"On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endef

.venv/.installed: pyproject.toml constraints.txt
	$(call make_venv,.venv)
	@echo "installing tensorkeep into .venv (click, rich, numpy; no torch) ..."
	@.venv/bin/python -m pip install $(PIP_FLAGS) -e .
	@touch $@

.venv-test/.tests: pyproject.toml constraints.txt
	$(call make_venv,.venv-test)
	@echo "installing the test extras into .venv-test (torch and its peers: this takes minutes) ..."
	@$(TEST)/python -m pip install $(PIP_FLAGS) -e '.[test,examples,peers]'
	@touch $@

.venv-test/.tools: .venv-test/.tests
	@$(TEST)/python -m pip install $(PIP_FLAGS) -e '.[dev,docs]'
	@touch $@
