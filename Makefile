# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

HOURS ?= 1
UPGRADE ?=
.PHONY: help demo data test lint lock docs bench chaos clean setup

setup: .venv/.installed  ## create .venv with all packages (most targets do this first)

REQUIREMENTS := envs/requirements.txt envs/requirements-dev.txt
PLUGINS := workflow/logger workflow/executor
.venv/.installed: pyproject.toml $(PLUGINS:=/pyproject.toml) $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 \
		-r envs/requirements-dev.txt --editable . $(addprefix --editable ,$(PLUGINS))
	touch $@

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

data: setup  ## download the data sets of config/real and config/paper into data/ (270 MB)
	$(BIN)/pollination data all

demo: setup  ## run the demo and write its report
	$(BIN)/snakemake --profile profiles/local
	$(BIN)/snakemake --profile profiles/local --report report.html
	@echo "Open results/demo/report/index.html. report.html says how each file was made."

test: setup  ## run all tests
	$(BIN)/python -m pytest tests --numprocesses 3 --dist loadfile --no-loadscope-reorder

lint: setup  ## run ruff, mypy, snakefmt, snakemake --lint, codespell and the link check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules workflow/Snakefile
	$(BIN)/snakemake --lint
	$(BIN)/codespell
	$(BIN)/python docs/check_links.py

lock: setup  ## pin all packages in envs/ again (UPGRADE=--upgrade: newest versions)
	$(BIN)/python envs/lock.py $(UPGRADE)

docs: setup  ## write the key lists of config/README.md; build the site in build/docs/
	$(BIN)/python -m pollination.plan.config.reference
	$(BIN)/python -m sphinx -W --keep-going -q -E -d build/doctrees docs build/docs
	@echo "The site is build/docs/index.html."

bench: setup  ## run the side-by-side benchmarks; compare the cost preview's rates with this machine
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks --throughput

chaos: setup  ## inject random faults for HOURS=1, then compare with an undisturbed run
	$(BIN)/python -m tests.chaos --hours $(HOURS)

clean:  ## delete the demo's results, the report and the site
	rm -rf results/demo report.html .snakemake build
