"""The code on the pages runs as it stands; what Sphinx makes and reads does not belong to the tests."""

import pytest

collect_ignore_glob = ["*.py", "_build", "_ext", "_templates", "auto_examples", "api", "start/pictures"]


def pytest_collection_modifyitems(items):
    """Let a page fit with a gap above `tol`, as it would say itself."""
    for item in items:
        if item.path.suffix == ".rst":
            item.add_marker(pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"))
