# One virtual environment for running and developing. What is up to date is not done again.
# Needs make and Python 3.11 or newer; choose one with `make PYTHON=python3.12 ...`.
PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: run test test-all lint bench table gallery studies extras lock clean
.DELETE_ON_ERROR:

run: $(VENV)/.stamp-run
	$(BIN)/speckvsim run scenarios/quickstart.yaml

test: $(VENV)/.stamp-dev
	$(BIN)/pytest -n $(JOBS)

test-all: $(VENV)/.stamp-dev
	$(BIN)/pytest -n $(JOBS) -m ""

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Timings, one process, nothing asserted: functions test_* in files bench_*.py.
bench: $(VENV)/.stamp-dev
	$(BIN)/pytest -s -m "" -o python_files="bench_*.py" tests/benchmarks

# The two tables of the README, from fresh runs.
ARMS := gpu_only gpu_only_l1 cxl_nospec cxl_next_layer quickstart
table: $(VENV)/.stamp-run
	for arm in $(ARMS); do \
		$(BIN)/speckvsim run scenarios/$$arm.yaml --quiet --check --out results/table/recorded/$$arm >/dev/null && \
		$(BIN)/speckvsim run scenarios/$$arm.yaml --quiet --check --out results/table/at_once/$$arm \
			--set workload.trace.arrivals=at_once >/dev/null || exit $$?; \
	done
	for load in recorded at_once; do \
		$(BIN)/python -m analysis.side_by_side --into README.md:$$load $(ARMS:%=results/table/$$load/%) || exit $$?; \
	done

# The conclusions in scenarios/studies, from fresh sweeps.
STUDIES := $(wildcard scenarios/studies/*.yaml)
studies: $(VENV)/.stamp-run
	for study in $(STUDIES); do \
		folder=results/studies/$$(basename $$study .yaml) && rm -rf $$folder && \
		$(BIN)/speckvsim sweep $$study --out $$folder --quiet && \
		$(BIN)/python -m analysis.conclusions $$study $$folder || exit $$?; \
	done

# The figures of the README, from fresh runs of shipped scenarios and studies; some minutes.
GALLERY := results/gallery
DRAWN := gpu_only gpu_only_l1 cxl_nospec cxl_next_layer quickstart
gallery: $(VENV)/.stamp-run
	$(BIN)/speckvsim sweep scenarios/studies/regime_map.yaml --quiet --out $(GALLERY)/regime_map >/dev/null
	$(BIN)/speckvsim sweep scenarios/studies/l1_size.yaml --quiet --out $(GALLERY)/l1_size >/dev/null
	for run in $(DRAWN); do \
		$(BIN)/speckvsim run scenarios/$$run.yaml --quiet --out $(GALLERY)/$$run \
			--set workload.trace.arrivals=at_once --set workload.trace.limit=300 >/dev/null || exit $$?; \
	done
	$(BIN)/speckvsim plot $(GALLERY)/regime_map --only regime_map_3 --out docs/gallery >/dev/null
	$(BIN)/speckvsim plot $(GALLERY)/l1_size --only axis_throughput_output_tokens_per_s --out docs/gallery >/dev/null
	$(BIN)/speckvsim plot $(DRAWN:%=$(GALLERY)/%) --only attribution --out docs/gallery >/dev/null
	$(BIN)/speckvsim plot $(GALLERY)/quickstart --only tiers --out docs/gallery >/dev/null
	$(BIN)/speckvsim reproduce --quiet --out $(GALLERY)/reproduce >/dev/null
	cp $(foreach kind,png csv txt,$(GALLERY)/reproduce/figures/atlas.$(kind)) docs
	cp $(foreach kind,png txt,$(GALLERY)/reproduce/figures/atlas_cost.$(kind)) docs
	rm docs/gallery/*.pdf docs/gallery/*.png

# Development and both extras: `cluster` (dask) and `explore` (optuna).
extras: $(VENV)/.stamp-all

# Writes the lock files anew from pyproject.toml; keeps pinned versions that still fit (UPGRADE=--upgrade lifts them).
# all.txt comes first and bounds the others, so that run and dev agree on every version in their shared environment.
UV_COMPILE = uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--group build --generate-hashes --no-emit-index-url --custom-compile-command "make lock" $(UPGRADE)
lock: export PATH := $(CURDIR)/$(BIN):$(PATH)
lock:
	@command -v uv >/dev/null || { echo "make lock needs uv; install it with: $(BIN)/pip install uv"; exit 1; }
	$(UV_COMPILE) --all-extras -o requirements/all.txt >/dev/null
	$(UV_COMPILE) --extra dev -c requirements/all.txt --no-annotate -o requirements/dev.txt >/dev/null
	$(UV_COMPILE) -c requirements/all.txt --no-annotate -o requirements/run.txt >/dev/null

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find simulator analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is what an interrupted or foreign environment lacks, so it is the sign of a complete one.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "speckvsim needs Python 3.11 or newer; '$(PYTHON)' was not found. Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "speckvsim needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The project itself is installed editable, built with the locked backend: nothing outside the lock file is fetched.
$(VENV)/.stamp-%: requirements/%.txt pyproject.toml | $(BIN)/pip
	@echo "installing requirements/$*.txt into $(VENV)"
	@$(PIP) install --require-hashes -r requirements/$*.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
