VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test lint benchmarks clean

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

# Everything, then the table of the README: about half an hour on two quiet cores. Peers that are not installed are
# skipped; benchmarks/README.md says how to install them. PYTHON is the interpreter of the environment that has them.
benchmarks:
	$(PYTHON) -m benchmarks.relu_vs_peers $(if $(CRONOS),--cronos $(CRONOS))
	$(PYTHON) -m benchmarks.gated_vs_peers
	$(PYTHON) -m benchmarks.scaling
	$(PYTHON) -m benchmarks.path
	$(PYTHON) -m benchmarks.tabular
	$(PYTHON) -m benchmarks.summary

clean:
	rm -rf $(VENV) .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache first_network.png
