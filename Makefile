# `make` alone lists what there is. Each target makes the environment when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint check format docs serve ui plugs wheel clean

help:
	@echo "usage: make TARGET [ARGS=\"...\"]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do \
	  printf '  make %-8s %s\n' "$$target" "$$text"; done

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(INSTALLED)

install: $(INSTALLED)  ## the package, its extras and the tools, in .venv, with the versions of constraints.txt

demo: $(INSTALLED)  ## train and evaluate a tiny reward model on real handwriting; ends with a report
	$(BIN)/r1-reward demo $(ARGS)

# A worker a core (ARGS="-n 0" for one process). Without .pyc files every worker would rewrite every test module each time.
test: $(INSTALLED)  ## every test, a worker a core; ARGS="-n 0 -x tests/judge" as pytest takes them
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(INSTALLED)  ## style and spelling: ruff, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

check: lint  ## lint, then types and the order of imports
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## the documentation, into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

serve: $(INSTALLED)  ## a judge over HTTP: make serve ARGS="--model runs/demo-seed0/rl --max-new-tokens 64"
	$(BIN)/r1-reward serve $(ARGS)

ui: $(INSTALLED)  ## the same with a web page
	$(BIN)/r1-reward ui $(ARGS)

plugs: $(INSTALLED)  ## the tests of what plugs into trainers, against their published packages; ARGS="verl openrlhf"
	$(BIN)/python tests/plugs/environments.py $(ARGS)

wheel: $(INSTALLED)  ## wheel and source distribution, in dist/
	$(BIN)/python -m build

clean:  ## remove the environments
	rm -rf $(VENV) .plugs
