"""Rows on the workers of a dask cluster: the operator, and the estimators on dask collections."""

import numpy as np
import pytest

from convexbn import DesignMatrix
from convexbn.model._sums import along_outputs, neuron_outputs
from convexbn.operators import DaskMatrix
from tests.test_operators import CASES, TALL, V, rows_of

distributed = pytest.importorskip("distributed")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def all_stay(monkeypatch):
    """Few samples that are chosen are not brought into memory."""
    monkeypatch.setattr("convexbn.operators._dask._FEW_ENTRIES", -1)


def on_workers(client, rows, n_patches=1, sizes=None):
    n_samples = len(rows) // n_patches
    sizes = sizes or [n_samples // 2, 1, n_samples - n_samples // 2 - 1]
    parts = np.split(rows, n_patches * np.cumsum(sizes)[:-1])
    blocks = [client.submit(DesignMatrix, part, n_patches, pure=False) for part in parts]
    return DaskMatrix(client, blocks, sizes, rows.shape[1], n_patches)


@pytest.mark.parametrize("case", CASES)
def test_every_solver_takes_rows_on_workers(client, case):
    rows, n_patches, solved = CASES[case]
    expected, found = solved(DesignMatrix(rows, n_patches))[0], solved(on_workers(client, rows, n_patches))[0]
    assert found == pytest.approx(expected, rel=1e-3 if case.startswith("fast path") else 1e-6)
