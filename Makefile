# make demo   set up, run the demo, write report.html        make test   set up, run all tests
# make chaos HOURS=1   break things at random while the demo runs, then compare
# make lint   ruff, snakefmt, snakemake --lint               make bench  side-by-side benchmarks      make clean
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

HOURS ?= 1
.PHONY: demo test lint bench chaos clean setup

setup: .venv/.installed

.venv/.installed: envs/requirements.txt envs/requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -r envs/requirements-dev.txt
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
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

bench: setup
	$(BIN)/python -m benchmarks

chaos: setup
	$(BIN)/python -m tests.chaos --hours $(HOURS)

clean:
	rm -rf results/demo report.html .snakemake
