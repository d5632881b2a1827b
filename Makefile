# Every target runs from .venv, which is made from requirements.lock. `make` alone lists the targets.

# The interpreter that .venv is made with: make demo PYTHON=python3.12
PYTHON ?= python3
# The one pin of uv, which installs the lock.
UV_VERSION := 0.13.8
# Passed on to pytest: make test ARGS="-k decode"
ARGS ?=

PACKAGES := mbt.schemas mbt.pipeline mbt.model mbt.train
# jpeg_quality.py chose a constant once, and soak.py takes ten minutes: they are run by hand.
BENCHMARKS := $(filter-out benchmarks/jpeg_quality.py benchmarks/soak.py,$(sort $(wildcard benchmarks/*.py)))
CAMPAIGN ?= films hostile_files http_behaviours disks
UV := .venv/bin/uv pip
COMPILE := $(UV) compile --universal --python-version 3.11 --generate-hashes --no-header -q --no-emit-package mbt-flax
# Of the image's Python: that of the launcher, which pickles for it.
IMAGE_PYTHON ?= 3.11
UV_STAMP := .venv/.uv-$(UV_VERSION)
READY := .venv/.ready

define CHECK_PYTHON
import sys
if not (3, 11) <= sys.version_info < (3, 13):
    sys.exit("mbt-flax needs Python 3.11 or 3.12; %s is %d.%d. Name another: make PYTHON=python3.12"
             % ((sys.executable,) + sys.version_info[:2]))
try:
    import ensurepip, venv
except ImportError as missing:
    sys.exit("%s cannot make virtual environments (%s). Install its venv package, e.g. apt install python%d.%d-venv"
             % ((sys.executable, missing) + sys.version_info[:2]))
endef
export CHECK_PYTHON

.PHONY: help install demo test quick lint bench soak campaign browser engines lock image clean

help: ## list these targets
	@echo "mbt-flax: each target makes .venv first, where it is missing or out of date."
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

install: $(READY) ## only make .venv, with mbt-data and mbt-train in it (about 1 GB to download, 4 GB on disk)

demo: $(READY) ## clips, records, three trained models, a table and a picture (make demo CSV=my.csv: on your own clips)
	@.venv/bin/python demo/run.py $(if $(CSV),--annotations='$(CSV)') $(if $(MEDIA_ROOT),--media_root='$(MEDIA_ROOT)')

test: $(READY) ## the tests; with CI=true the slow ones too, and those on other engines
	@.venv/bin/python -m pytest -n 2 --dist worksteal -q $(if $(CI),,-m "not slow and not engines") $(ARGS)

# Only the files that have some are imported.
quick: $(READY) ## the quickest tests of each room, for use between edits: under a minute
	@.venv/bin/python -m pytest -n 2 --dist worksteal -q -m "quick and not slow" $$(grep -l "mark\.quick" tests/test_*.py) $(ARGS)

lint: $(READY) .types/mbt ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@MYPYPATH=.types .venv/bin/mypy $(addprefix -p ,$(PACKAGES))
	@MYPYPATH=.types:demo .venv/bin/mypy demo/*.py

bench: $(READY) ## each script of benchmarks/ in turn
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; .venv/bin/python $$script; done

soak: $(READY) ## 2,000 and 20,000 clips built: do time per clip and memory grow? takes ten minutes
	@.venv/bin/python benchmarks/soak.py

campaign: $(READY) ## the long campaigns, whole: films, hostile files, servers, disks (as root); an hour or two (CAMPAIGN=disks: one)
	@wrong=; for name in $(CAMPAIGN); do echo "== $$name"; .venv/bin/python tests/campaigns/$$name.py $(ARGS) || wrong="$$wrong $$name"; done; \
	test -z "$$wrong" || { echo "Something was wrong in:$$wrong" >&2; exit 1; }

browser: ## Chromium, in which the report is looked at; by apt, where it is missing
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y chromium >/dev/null; \
	else echo "Chromium is not on PATH. Install it, e.g.: sudo apt-get install chromium" >&2; exit 1; fi

engines: $(READY) ## Prism and Beam's job server for Flink, which the tests marked engines run; into .engines
	@.ci/engines

lock: $(UV_STAMP) ## write the locks anew from pyproject.toml (LOCK_ARGS=--upgrade: with the newest versions)
	@$(COMPILE) --extra dev pyproject.toml -o requirements.lock $(LOCK_ARGS)
	@echo setuptools | $(COMPILE) pyproject.toml - --constraint requirements.lock -o containers/worker.lock
	@echo uv==$(UV_VERSION) | $(COMPILE) - -o .ci/uv.lock
	@echo "The locks are up to date with pyproject.toml."

image: ## the image of Dataflow's workers (make image IMAGE=NAME:TAG), on Beam's, whose digest is asked for and recorded
	@test -n "$(IMAGE)" || { echo "Name the image: make image IMAGE=REGION-docker.pkg.dev/PROJECT/mbt-flax/worker:TAG" >&2; exit 1; }
	@command -v docker >/dev/null || { echo "docker is not on PATH: the image is built by it" >&2; exit 1; }
	@base=apache/beam_python$(IMAGE_PYTHON)_sdk:$$(sed -n 's/^apache-beam==\([^ ]*\).*/\1/p' containers/worker.lock); \
	digest=$$(docker buildx imagetools inspect "$$base" --format '{{.Manifest.Digest}}') && \
	docker build --build-arg BASE="$$base@$$digest" --label org.opencontainers.image.base.digest="$$digest" \
	  -f containers/worker.Dockerfile -t "$(IMAGE)" .

clean: ## remove .venv, caches and build leftovers; demo-out stays
	rm -rf .venv .engines .types .jax_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV_STAMP): .ci/uv.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here. Name a Python: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@echo "Making .venv with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r .ci/uv.lock
	@touch $@

# setuptools is in the lock, so the last step needs no build isolation and no network.
$(READY): requirements.lock setup.py pyproject.toml $(UV_STAMP)
	@echo "Installing requirements.lock into .venv (a first time downloads about 1 GB)."
	@quiet=; test -t 2 || quiet=-q; $(UV) sync $$quiet --require-hashes --python .venv/bin/python requirements.lock
	@$(UV) install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
	@touch $@

# mypy cannot see setup.py's map of folders to packages, but it can follow a link.
.types/mbt:
	@mkdir -p .types
	@ln -sfn .. $@
