# The commands of the project. Each builds .venv first, if it is not there or older than what it is built from.
# On another Python beside it: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TESTS ?= tests

.PHONY: help demo test test-all docs mutants check bench numerics reproduce constraints clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 24

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vaejax needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

demo: $(VENV)/.installed  ## train the default VAE on the embedded digits, evaluate it and draw it (runs/demo)
	$(BIN)/python experiments/train.py --out runs/demo --overwrite

# Most of a test's time is the compiler's, so these are compiled in haste (tests/conftest.py); test-all
# compiles them as users do.
test: export VAEJAX_HASTE = 1
test: $(VENV)/.installed  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(TESTS)

test-all: $(VENV)/.installed  ## every test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

docs: $(VENV)/.documented  ## the site, build/site; what its pages compute is kept in build/docs
	$(BIN)/python scripts/docs.py

mutants: $(VENV)/.installed  ## plant the bugs of tests/mutants one at a time: each must be caught by its tests
	$(BIN)/python scripts/mutants.py

check: $(VENV)/.installed  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/.installed  ## training speed against a hand-written loop and NumPyro, and PyTorch and Pythae where they are installed
	$(BIN)/python scripts/bench_train.py

numerics: $(VENV)/.installed  ## how exact each density is, made anew (docs/numerics.md), a minute
	$(BIN)/python scripts/numerics.py > docs/.numerics.md && mv docs/.numerics.md docs/numerics.md

# Such as make reproduce TABLE=iwae ROW=iwae-5 FLAGS="--data-folder data --max-minutes 110"; the
# same command goes on.
reproduce: $(VENV)/.installed  ## compute a row of a published TABLE, and record it in docs/reproduced.md
	$(BIN)/python -m experiments.reproduce.$(TABLE) $(if $(ROW),--row $(ROW)) $(FLAGS)

constraints: $(VENV)/.installed  ## resolve constraints.txt anew, for every supported Python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --all-extras --upgrade pyproject.toml --output-file constraints.txt

clean:  ## remove what the commands made, runs excepted
	rm -rf .venv .venv-* .pytest_cache .ruff_cache build *.egg-info
