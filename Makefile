# 'make help' lists the targets. Each installs what it needs: a virtual environment, the pinned Python packages, the pinned
# CDK CLI.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RELEASE := .venv-release
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(PATH)
# Many container images set it; then each process compiles aws-cdk-lib anew, and a synthesis takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo bench test tests test-live tools lint setup requirements release dist audit sbom clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

demo: setup  ## The whole journey on the embedded cloud. SOURCE=PATH|URL mirrors that repository, KEEP=1 leaves the cloud running, REPOS=N adds repositories
	$(BIN)/python -m demo $${SOURCE:+--source "$$SOURCE"} $(if $(filter-out 0,$(KEEP)),--keep) \
	  $${REPOS:+--repositories "$$REPOS"}

test:  ## Lint, type checks and every test
	@$(MAKE) --no-print-directory -j3 setup tools
	@$(MAKE) --no-print-directory -j2 lint tests

# The first import of everything compiles it; without this, each worker would do so.
tests: setup
	@$(BIN)/pytest --collect-only -qq > /dev/null || true
	MAKEFLAGS= $(BIN)/pytest -n 4 --dist worksteal

test-live: setup  ## The journey on real accounts (docs/assumptions.md); creates and removes resources, never run by CI
	$(BIN)/pytest tests/live -v

bench: setup  ## Compare the engine and the snapshots with plain git, and measure provisioning. SOURCE=PATH measures with that repository
	@$(BIN)/python -m benchmarks.mirror $${SOURCE:+--source "$$SOURCE"}
	@$(BIN)/python -m benchmarks.snapshots
	@$(BIN)/python -m benchmarks.provisioning
	@$(BIN)/python -m benchmarks.fleet
	@$(BIN)/python -m benchmarks.requests

lint: setup  ## Lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tools:  ## Debian's Chromium and git-lfs for the tests that need them, where they are missing and apt may install them
	@missing=""; \
	command -v chromium > /dev/null || command -v google-chrome > /dev/null || missing="chromium"; \
	command -v git-lfs > /dev/null || missing="$$missing git-lfs"; \
	[ -z "$$missing" ] || echo "The tests of the status page and of Git LFS need$$missing: installed now as root on Debian, else skipped."; \
	[ -z "$$missing" ] || [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } > /dev/null

setup: $(VENV)/.installed node_modules/.installed  ## Set up the virtual environment and the CDK CLI

$(VENV)/.installed: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is " + sys.version.split()[0] + ". Set PYTHON=... to another one.")'
	@echo "Creating a virtual environment in $(VENV) and installing the pinned Python packages, which takes half a minute."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --no-deps --no-index --no-build-isolation -e .
	@touch $@

node_modules/.installed: package.json package-lock.json
	@command -v node > /dev/null || { echo "Node 20 or later is needed (22 is recommended) for the CDK CLI; install it, and run this again." >&2; exit 1; }
	@node -e 'if (parseInt(process.versions.node) < 20) { console.error("Node 20 or later is needed; this is " + process.version); process.exit(1) }'
	@echo "Installing the pinned CDK CLI in node_modules."
	@npm ci --silent --no-fund --no-audit
	@touch $@

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --generate-hashes \
  --custom-compile-command 'make requirements'

# Third parties only, each with its hashes; both files of the package get the same versions.
requirements:  ## Update every pinned package, for Python 3.11 and later
	$(COMPILE) --upgrade --extra deploy --extra entra --group demo --group dev pyproject.toml -o requirements-dev.txt
	sed -n 's/ \\$$//; /==/p' requirements-dev.txt > .pins.txt
	$(COMPILE) -c .pins.txt --extra deploy pyproject.toml -o requirements.txt
	$(COMPILE) --upgrade --group pyproject.toml:release -o requirements-release.txt
	rm .pins.txt

release: $(RELEASE)/.installed  ## Make the release VERSION=X.Y.Z: changelog, two equal builds, SBOM, checksums, tag; publishes nothing
	@$(RELEASE)/bin/python -m release "$(VERSION)"

dist: $(RELEASE)/.installed  ## Build the sdist and the wheel in dist/
	@SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" $(RELEASE)/bin/python -m hatchling build -d dist

audit: $(RELEASE)/.installed  ## Ask the advisory service of PyPI about every pinned package; needs the internet
	$(RELEASE)/bin/pip-audit --require-hashes --disable-pip -r requirements.txt -r requirements-dev.txt
	npm audit

sbom: $(RELEASE)/.installed  ## Write a CycloneDX list of what an installation consists of to dist/sbom.json
	@mkdir -p dist
	$(RELEASE)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-format JSON --output-reproducible -o dist/sbom.json requirements.txt

$(RELEASE)/.installed: requirements-release.txt
	@$(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/pip install --quiet --no-compile --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	@touch $@

clean:  ## Remove what the other targets created
	rm -rf $(VENV) $(RELEASE) dist node_modules cdk.out .pytest_cache .mypy_cache .ruff_cache .hypothesis
