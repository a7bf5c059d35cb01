"""Settings that libraries read when they are imported, and the pictures that a test draws."""

import os
from collections import Counter
from pathlib import Path

import pytest

# The problems are tiny, and the threads of two test processes would fight over the cores.

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# Without it scikit-learn's estimator checks skip the one on array API input.
os.environ.setdefault("SCIPY_ARRAY_API", "1")


@pytest.fixture
def pictures(monkeypatch):
    """The figures that a test saves, by the name of the file; what they show is there to be looked at."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    saved, savefig = {}, Figure.savefig

    def save(figure, path, **options):
        savefig(figure, path, **options)
        assert Path(path).read_bytes().startswith(b"\x89PNG")
        saved[Path(path).name] = figure

    monkeypatch.setattr(Figure, "savefig", save)
    yield saved
    plt.close("all")


def pytest_collection_modifyitems(config, items):
    """Leave scikit-learn's checks of arrays of other libraries to test_array_api, whose estimators train fast."""
    left = [item for item in items if "check_array_api" in item.name and item.path.name != "test_array_api.py"]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
    if config.pluginmanager.hasplugin("_cov"):
        trace_first_cases(items)


def trace_first_cases(items):
    """Measure coverage in thirty cases of each test: those after them, scikit-learn's checks, take a third less."""
    seen = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        seen[test] += 1
        if seen[test] > 30:
            item.add_marker("no_cover")
