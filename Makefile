# Everything happens in a virtual environment of the project's own, .venv, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-fast test-integrations trust oldest matrix wheel lint docs bench tables clean

demo: $(VENV)/cpu,plot,fast  ## build an index on the packaged sample, tune it, print before and after
	$(BIN)/faiss-distill demo --output demo

test: $(VENV)/test  ## the whole test suite
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: $(VENV)/test  ## without the slow tests
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-integrations: $(VENV)/matrix  ## vector stores of other libraries, in an environment of their own, on Python 3.11
	$(BIN)/nox -s integrations

trust: $(VENV)/test  ## the promises, in full: faults, interrupts, kills, wrong corpora; half an hour, prints a table
	TRUST=full $(BIN)/python -m pytest -n auto --dist load tests/trust

oldest: $(VENV)/matrix  ## the tests that meet dependencies, with the oldest faiss, numpy and scipy, on Python 3.11
	$(BIN)/nox -s "tests(oldest)"

matrix: $(VENV)/matrix  ## the same with the oldest and newest of all, on Python 3.10 to 3.13; downloads gigabytes
	$(BIN)/nox

wheel: $(VENV)/wheel  ## build sdist and wheel, and tune with the wheel alone on each Python from 3.10 to 3.13 that is here
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist
	$(BIN)/twine check --strict build/dist/*
	$(BIN)/nox -s wheel

lint: $(VENV)/lint  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/docs  ## build docs/_build/html
	$(BIN)/sphinx-build -n -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/bench  ## the benchmark of the README, on the packaged sample; DATA=DIR for the full set
	$(BIN)/python -m benchmarks.debian $(if $(DATA),--data $(DATA))

tables: $(VENV)/bench  ## tables 2 to 6 and figure 3, on the packaged sample; DATA=DIR for the full set (hours)
	for t in table2 table3 table4 table5 table6 figure3; do \
	$(BIN)/python -m benchmarks.$$t $(if $(DATA),--data $(DATA)) || exit; done

$(VENV)/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) .nox demo results docs/_build docs/auto_tutorials .cache
