# make demo    the whole job on the embedded cloud; SOURCE=<path or URL> mirrors that repository, KEEP=1 leaves it running
#              (with REPOS=3, with three repositories to mirror)
# make test    every test
# make test-live   the journey on real accounts, see docs/assumptions.md; creates and removes resources, never run by CI
# make bench       the mirror engine against the blog post's way, and provisioning; SOURCE=<path> measures with that repository
# All set up what they need: a virtual environment, the pinned Python packages, the pinned CDK CLI.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: demo bench test test-live lint setup requirements clean

demo: setup
	$(BIN)/codecommit-mirror demo $${SOURCE:+--source "$$SOURCE"} $(if $(filter-out 0,$(KEEP)),--keep) \
	  $${REPOS:+--repositories "$$REPOS"}

test: setup lint
	$(BIN)/pytest -n 4

test-live: setup
	$(BIN)/pytest tests/live -v

bench: setup
	@$(BIN)/python -m benchmarks.mirror $${SOURCE:+--source "$$SOURCE"}
	@$(BIN)/python -m benchmarks.provisioning

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.installed node_modules/.installed

$(VENV)/.installed: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is " + sys.version.split()[0] + ". Set PYTHON=... to another one.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

node_modules/.installed: package.json package-lock.json
	@node -e 'if (parseInt(process.versions.node) < 20) { console.error("Node 20 or later is needed; this is " + process.version); process.exit(1) }'
	npm ci --silent --no-fund --no-audit
	@touch $@

# Pins every package anew, for every Python from 3.11 on; all three files get the same versions.
requirements:
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make requirements' requirements-dev.in -o requirements-dev.txt
	grep == requirements-dev.txt > .pins.txt
	for name in requirements requirements-ci; do \
	  uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate -c .pins.txt \
	    --custom-compile-command 'make requirements' $$name.in -o $$name.txt || exit 1; \
	done
	rm .pins.txt

clean:
	rm -rf $(VENV) node_modules cdk.out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
