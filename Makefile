VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test lint clean

# Everything the two commands need, in a virtual environment; PyTorch first, at the version that constraints.txt pins.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	MPLBACKEND=agg $(BIN)/python examples/plot_first_network.py

test: $(VENV)/installed
	$(BIN)/pytest --numprocesses 2 --cov --cov-report term-missing:skip-covered --cov-fail-under 95

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache first_network.png
