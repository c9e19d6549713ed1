# make verify    a small campaign from simulated raw frames to a milestone test report
# make test      the tests, the linters and the type checker;  make boundscheck: with checked indices
# make verify-hits DIR=...   the same of HiTS 2015 as it is published
# make readers   what others read with, in an environment of its own: alerts, catalogues, reports
# make bench     speed, beside the peers that are installed;  make bench-science: accuracy
# make docs      check the documentation;  make image: the container;  make verify-container: prove it
# Every target needs only Python >= 3.11 and make; it creates .venv by itself.

PYTHON ?= python3
PROFILE ?= mini
SEED ?= 20150217
JOBS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
PIP = $(PY) -m pip install --quiet --disable-pip-version-check
PYTEST = $(PY) -m pytest -n $(JOBS) --dist loadfile
NIGHTJAR := $(VENV)/bin/nightjar
WORK := campaigns/$(PROFILE)
HITS := campaigns/hits2015
# For example --template 410929 --template 410985
HITS_OPTIONS ?=
STUDY := testcases/studies/$(PROFILE).toml
EVIDENCE := campaigns/evidence
DOCKER ?= $(firstword $(notdir $(shell command -v docker podman)) docker)
CONTAINED = $(DOCKER) run --rm --user 1000:1000 --network none --read-only --tmpfs /tmp --tmpfs /work:mode=1777 \
  --cap-drop all --security-opt no-new-privileges nightjar
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
# Without compiled modules on disk every command would load its libraries for seven seconds, not two.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env test lint unit boundscheck verify demo bench bench-science docs image verify-container clean

help:
	@sed -n 's/^# //p' Makefile | head -7

env: $(VENV)/.ready

$(VENV)/.ready: requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "nightjar: needs Python 3.11, 3.12 or 3.13, found $$($(PYTHON) --version); set PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "nightjar: Python has no venv module; install it (Debian: apt-get install python3-venv)"; exit 2; }
	@echo "nightjar: creating $(VENV)"; date +%s > .installing
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements-uv.lock
	@$(VENV)/bin/uv pip install --quiet --python $(PY) --require-hashes -r requirements.lock 2>/dev/null \
	  || $(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-build-isolation --no-deps -e .
	@$(PY) -m harness.verify.evidence install --since $$(cat .installing) -- $(NIGHTJAR) --version
	@rm .installing; touch $@

test: docs
	@$(PY) -m harness.verify.evidence lint -- $(MAKE) --no-print-directory lint
	@$(PY) -m harness.verify.evidence unit-tests --junit $(EVIDENCE)/unit-tests.xml -- \
	  $(PYTEST) --junit-xml=$(EVIDENCE)/unit-tests.xml

lint: env
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy \
	  && $(PY) -m pytest -q tests/core/test_docstrings.py

unit: env
	@$(PYTEST)

# What computes, once more with loops that check every index: an IndexError is a bug of ours.  Of the
# tests of the harness those that run a whole campaign are enough.
LOOPS = $(filter-out tests/__pycache__/ tests/harness/ tests/schema/ tests/verify/,$(wildcard tests/*/)) \
  tests/harness/test_harness_campaign.py
boundscheck: env
	@NUMBA_BOUNDSCHECK=1 $(PYTEST) -q $(LOOPS)

# Kills at 50 moments, a thousand damaged files and 2,000 mutated headers, where `make test` has 5, a
# hundred and 200.
.PHONY: soak
soak: env
	@NIGHTJAR_SOAK=1 $(PY) -m pytest -q tests/harness/test_harness_recovery.py \
	  tests/harness/test_harness_corpus.py tests/harness/test_harness_survey.py \
	  tests/fuzz/test_fuzz_headers.py

# Programs of brokers and archives, 1.4 GB of them: not part of `make test`.
READERS := .venv-readers
.PHONY: readers
readers: env
	@$(PYTHON) -m venv --clear $(READERS)
	@$(VENV)/bin/uv pip install --quiet --python $(READERS)/bin/python --require-hashes \
	  -r requirements-readers.lock
	@$(VENV)/bin/uv pip install --quiet --python $(READERS)/bin/python --no-build-isolation --no-deps -e .
	@$(READERS)/bin/python -m pytest -q tests/harness/test_harness_readers.py

verify: env
	@$(MAKE) --no-print-directory campaign

.PHONY: campaign
campaign:
	@test -e $(WORK)/nightjar.toml || $(NIGHTJAR) init $(WORK) --profile $(PROFILE) --seed $(SEED)
	@$(NIGHTJAR) sim $(WORK) -j $(JOBS)
	@$(NIGHTJAR) run $(WORK) -j $(JOBS)
	@test ! -e $(STUDY) || $(NIGHTJAR) study $(WORK) --name verification --replace --engine local \
	  --design $(STUDY) -j $(JOBS)
	@code=0; $(NIGHTJAR) verify $(WORK) || code=$$?; test $$code -eq 0 -o $$code -eq 3

# HiTS 2015 in DIR, a clone of ap_verify_hits2015 or files of the archive; see docs/hits.md.
.PHONY: verify-hits
verify-hits: env
	@test -n "$(DIR)" || { echo "nightjar: say where HiTS is: make verify-hits DIR=..."; exit 2; }
	@test -e $(HITS)/nightjar.toml || $(NIGHTJAR) init $(HITS)
	@code=0; $(NIGHTJAR) ingest $(HITS) --hits2015 "$(DIR)" $(HITS_OPTIONS) || code=$$?; test $$code -le 1
	@code=0; $(NIGHTJAR) run $(HITS) -j $(JOBS) || code=$$?; test $$code -le 1
	@code=0; $(NIGHTJAR) verify $(HITS) || code=$$?; test $$code -eq 0 -o $$code -eq 3

demo: env
	@$(MAKE) --no-print-directory campaign PROFILE=tiny

bench: env
	@$(PY) -m bench speed

bench-science: env
	@$(PY) -m bench science

# The quoted errors of the attributes of sources against their scatter, recorded for AG-00-20.
.PHONY: pulls
pulls: env
	@$(PY) -m harness.verify.evidence pulls -- $(PY) -m bench science --only diasource

docs: env
	@$(PY) -m harness.verify.evidence docs -- $(PY) -m harness.cli.docs

image:
	@$(DOCKER) build -t nightjar .

verify-container: env
	@$(PY) -m harness.verify.evidence container -- sh -c '$(CONTAINED) doctor && $(CONTAINED) demo'

clean:
	rm -rf campaigns build dist .pytest_cache .mypy_cache .ruff_cache
