# Everything a fresh machine needs is Python 3.11 or newer, make and a package index:
#
#     make demo     install into .venv, then run the main job: a language model's whole life on real text
#     make test     install into .venv, then lint, types, tests, doctests and the documentation
#
# Another interpreter: make test PYTHON=python3.13. Nothing is installed again until pyproject.toml or the kernels change.

SHELL := bash
.SHELLFLAGS := -e -u -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

demo: $(VENV)/installed-demo
	$(BIN)/sensorium demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses=auto --dist=worksteal
	$(BIN)/mkdocs build --strict --quiet --site-dir $(VENV)/site

# One stamp an extra (demo, dev), newer than pyproject.toml and the kernels when what it asks for is installed.
$(VENV)/installed-%: pyproject.toml hatch_build.py $(wildcard src/sensorium/native/*.h src/sensorium/native/*.cpp) | $(BIN)/python
	@echo "Installing Sensorium and what it needs into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sensorium needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
