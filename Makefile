# `make demo` and `make test` work from a bare clone: they make .venv first, and again when the lock changes.

.DEFAULT_GOAL := help
.PHONY: help setup demo check test accessibility bench docs lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# One thread a process: small networks on a CPU are slower with more.
export OMP_NUM_THREADS ?= 1

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP)  ## make .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@python=; for name in python3 python3.11 python3.12 python3.13 python3.14 python; do \
		if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "error: Python 3.11 or newer was not found" >&2; exit 1; fi; \
	$$python -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(STAMP)  ## a fit without options beside its peers, where some good kinds are rare; leaves demo-run
	$(BIN)/tailwise demo

test: $(STAMP)  ## run every test and doctest
	$(BIN)/python -m pytest --numprocesses 2

accessibility: $(STAMP)  ## check the pages by axe-core in Chromium; npm puts it into build/
	npm install --silent --no-save --prefix build/accessibility axe-core@4
	$(BIN)/python -m pytest tests/test_report_page.py

check: $(STAMP)  ## lint, format, types, and whether what is generated is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/build.py --check

bench: $(STAMP)  ## the long-tail suite (under an hour on 2 cores, resumable), its page, and timings as JSON lines
	$(BIN)/tailwise bench long_tail
	$(BIN)/python benchmarks/weights_speed.py
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/weighting_overhead.py

docs: $(STAMP)  ## write docs/api.md from the docstrings, the README's table from the demo's results, and figures
	$(BIN)/python docs/build.py
	$(BIN)/python docs/figures.py

lock: $(STAMP)  ## renew requirements.lock from pyproject.toml
	$(BIN)/python -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet torch==2.13.0 '.[engines,excel,graph,hyperspectral,images,onnx,serve,solar,dev]'
	{ grep '^#' requirements.lock; build/lock/bin/python -m pip freeze --exclude tailwise | sed 's/+cpu//'; } > build/lock.txt
	mv build/lock.txt requirements.lock

clean:  ## remove .venv and caches
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
