# make demo   set up, run the demo, write report.html        make test   set up, run all tests
# make chaos HOURS=1   break things at random while the demo runs, then compare
# make docs   the tables of keys in config/README.md, from the schema
# make lint   ruff, mypy, snakefmt, snakemake --lint         make bench  side-by-side benchmarks      make clean
# make lock   pin all packages anew in envs/ (UPGRADE=--upgrade: their newest versions)
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

HOURS ?= 1
UPGRADE ?=
.PHONY: demo test lint lock docs bench chaos clean setup

setup: .venv/.installed

.venv/.installed: pyproject.toml envs/requirements.txt envs/requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -r envs/requirements-dev.txt --editable .
	touch $@

demo: setup
	$(BIN)/snakemake --profile profiles/local
	$(BIN)/snakemake --profile profiles/local --report report.html
	@echo "The report is report.html; its figures and numbers lie in results/demo/report/."

test: setup
	$(BIN)/python -m pytest tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

lock: setup
	$(BIN)/python envs/lock.py $(UPGRADE)

docs: setup
	$(BIN)/python -m pollination.plan.config.reference

bench: setup
	$(BIN)/python -m benchmarks

chaos: setup
	$(BIN)/python -m tests.chaos --hours $(HOURS)

clean:
	rm -rf results/demo report.html .snakemake
