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
UV := .venv/bin/uv pip
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

.PHONY: help demo test lint bench campaign soak browser engines lock clean

help: ## list these targets
	@echo "mbt-flax: each target makes .venv first, where it is missing or out of date."
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## clips, records, three trained models, a table and a picture (make demo CSV=my.csv: on your own clips)
	@.venv/bin/python demo/run.py $(if $(CSV),--annotations='$(CSV)') $(if $(MEDIA_ROOT),--media_root='$(MEDIA_ROOT)')

test: $(READY) ## the tests; with CI=true the slow ones too, and those on other engines
	@.venv/bin/python -m pytest -n 2 --dist worksteal -q $(if $(CI),,-m "not slow and not engines") $(ARGS)

lint: $(READY) .types/mbt ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@MYPYPATH=.types .venv/bin/mypy $(addprefix -p ,$(PACKAGES))
	@MYPYPATH=.types:demo .venv/bin/mypy demo/*.py

bench: $(READY) ## each script of benchmarks/ in turn
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; .venv/bin/python $$script; done

campaign: $(READY) ## each script of tests/campaigns/ in turn: thousands of bad files, disks, servers; takes hours
	@set -e; for script in $(sort $(wildcard tests/campaigns/*.py)); do echo "== $$script"; .venv/bin/python $$script $(ARGS); done

soak: $(READY) ## 2,000 and 20,000 clips built: do time per clip and memory grow? takes ten minutes
	@.venv/bin/python benchmarks/soak.py

browser: ## Chromium, in which the report is looked at; by apt, where it is missing
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y chromium >/dev/null; \
	else echo "Chromium is not on PATH. Install it, e.g.: sudo apt-get install chromium" >&2; exit 1; fi

engines: $(READY) ## Prism and Beam's job server for Flink, which the tests marked engines run; into .engines
	@.ci/engines

lock: $(UV_STAMP) ## write requirements.lock anew from pyproject.toml (LOCK_ARGS=--upgrade: with the newest versions)
	@$(UV) compile --universal --python-version 3.11 --extra dev pyproject.toml \
	  --no-header -q --no-emit-package mbt-flax -o requirements.lock $(LOCK_ARGS)
	@echo "requirements.lock is up to date with pyproject.toml."

clean: ## remove .venv, caches and build leftovers; demo-out stays
	rm -rf .venv .engines .types .jax_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV_STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here. Name a Python: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@echo "Making .venv with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# setuptools is in the lock, so the last step needs no build isolation and no network.
$(READY): requirements.lock setup.py pyproject.toml $(UV_STAMP)
	@echo "Installing requirements.lock into .venv (a first time downloads about 1 GB)."
	@quiet=; test -t 2 || quiet=-q; $(UV) sync $$quiet --python .venv/bin/python requirements.lock
	@$(UV) install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
	@touch $@

# mypy cannot see setup.py's map of folders to packages, but it can follow a link.
.types/mbt:
	@mkdir -p .types
	@ln -sfn .. $@
