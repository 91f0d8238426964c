# make demo              install, then the whole way on generated footage (make demo FOOTAGE=path: on yours)
# make test              install, then the tests; make test-fast: without Ray, training and browsers;
#                        make test-slow: kills, faults, buckets, whole runs (SLOW_MINUTES=15: some of them, others each day)
# make lint              formatting, style and types
PYTHON ?= python3
VENV ?= .venv
FOOTAGE ?=
BIN := $(VENV)/bin

.PHONY: install demo test test-fast test-slow lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Posture needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/posture demo $(if $(FOOTAGE),--footage '$(FOOTAGE)')

test: install
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder

test-fast: install
	$(BIN)/python -m pytest -m 'not slow and not ray and not long' -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/python -m pytest -m slow $(if $(SLOW_MINUTES),--slow-minutes $(SLOW_MINUTES))

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) posture-demo build dist
