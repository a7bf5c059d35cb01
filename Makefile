VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo quick test coverage test-min test-matrix lint dist docs benchmarks clean

# Everything the two commands need, in a virtual environment; PyTorch first, at the version that constraints.txt pins.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	MPLBACKEND=agg $(BIN)/python examples/first_steps/plot_first_fit.py first_fit.png

# Bytecode is kept whatever the environment says: tests start Python again and again.
TEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest --numprocesses 2

test: $(VENV)/installed
	$(TEST)

# The same tests under the tracer of coverage, which take half as long again.
coverage: $(VENV)/installed
	$(TEST) --cov --cov-report term-missing:skip-covered --cov-fail-under 99

# The files that find most faults: the mathematics, and every solver against the convex program.
QUICK = problem losses programs theory certificate pricing ascent branch_and_bound kink_program column_generation \
	solvers gated network design

quick: lint
	$(TEST) -m "not slow" $(QUICK:%=tests/test_%.py)

# The oldest supported versions in an environment of their own. Old libraries warn of new ones, which is no error here.
test-min:
	$(PYTHON) -m venv .venv-min
	.venv-min/bin/pip install --quiet --constraint constraints-min.txt torch
	.venv-min/bin/pip install --quiet --constraint constraints-min.txt --editable '.[test,torch]'
	.venv-min/bin/pytest --numprocesses 2 -m "not slow" -W default tests

# The tests of `make quick` on every Python that is at hand.
test-matrix:
	.ci/matrix $(QUICK:%=tests/test_%.py)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Wheel and source distribution, into dist, each installed into a new environment without extras, and tried.
dist: $(VENV)/installed
	rm -rf dist .venv-dist
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd dist && ../.venv-dist/bin/python ../.ci/try_installed.py
	.venv-dist/bin/pip install --quiet --no-deps --force-reinstall dist/*.tar.gz
	cd dist && ../.venv-dist/bin/python ../.ci/try_installed.py

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# Pages, gallery and reference, into docs/_build/html, with warnings as errors and without a connection; about four minutes
# from scratch, since the examples run. What did not change is not run again.
docs: $(VENV)/installed-docs
	MPLBACKEND=agg $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

# The benchmarks choose the number of threads themselves.
MEASURE = env -u OMP_NUM_THREADS -u OPENBLAS_NUM_THREADS -u MKL_NUM_THREADS $(PYTHON) -m benchmarks

# All but CIFAR-10, then the tables: about an hour and a half on two quiet cores without the sets and the peers of tabular,
# which take ten hours (DATA and KEEL say where the sets are). Peers that are not installed are skipped;
# benchmarks/README.md says how to install them. PYTHON is the interpreter of the environment that has them.
benchmarks:
	$(MEASURE).relu_vs_peers $(if $(CRONOS),--cronos $(CRONOS))
	$(MEASURE).gated_vs_peers
	$(MEASURE).gated_paths $(if $(ADELIE),--adelie $(ADELIE))
	$(MEASURE).scaling
	$(MEASURE).path
	$(MEASURE).solves
	$(MEASURE).tabular $(if $(DATA),--data $(DATA)) $(if $(KEEL),--keel $(KEEL))
	$(MEASURE).defaults
	$(MEASURE).gdnp $(if $(A9A),--a9a $(A9A))
	$(MEASURE).deep_gdnp $(if $(CIFAR),--data $(CIFAR))
	$(MEASURE).weight_norm
	$(MEASURE).identity_mapping
	$(MEASURE).deep_identity_mapping $(if $(CIFAR),--data $(CIFAR))
	$(MEASURE).deep_weight_norm $(if $(CIFAR),--data $(CIFAR))
	$(MEASURE).summary

clean:
	rm -rf $(VENV) .venv-* dist docs/_build docs/auto_examples docs/api/generated docs/api/examples .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache first_fit.png
