"""Damaged and hostile files are refused, without running code and without the memory that their headers claim."""


import numpy as np
import pytest

from benchmarks import trust_files
from convexbn import (
    BatchNormNetwork,
    ConvexBNRegressor,
    read_rows,
)
from convexbn._utils.npz import read_npz


def test_every_case_is_refused_or_works(tmp_path):
    found = trust_files.run(120, seed=1, folder=tmp_path)
    assert not found["failures"]
    assert found["outcomes"]["refused"] > 80
    assert found["largest_mebibytes"] < trust_files.MEBIBYTES
    assert not (tmp_path / "alarm").exists()


def hostile(name, *shapes):
    """An npz file of a network whose array of this name claims a shape."""
    members = trust_files._members(trust_files_of_network())
    members[f"{name}.npy"] = trust_files._npy(*shapes)
    return trust_files._zipped(members)


def trust_files_of_network(folder=[]):
    import io

    file = io.BytesIO()
    np.savez(file, format="convexbn-network-1", kind="BatchNormNetwork", weights=np.ones((1, 1)))
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (2**62, 4), (-1, 5), (10**30,)])
@pytest.mark.parametrize("dtype", ["<f8", "<U100000"])
def test_a_header_that_claims_too_much(shape, dtype, tmp_path):
    for name, load in (("network.npz", BatchNormNetwork.load), ("model.npz", ConvexBNRegressor.load)):
        path = tmp_path / name
        path.write_bytes(hostile("weights", shape, dtype, bytes(64)))
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            load(path)
    for ending in (".npz", ".npy"):
        folder = tmp_path / ending[1:]
        folder.mkdir()
        path = folder / f"X{ending}"
        bare = trust_files._npy(shape, dtype, bytes(64))
        path.write_bytes(bare if ending == ".npy" else trust_files._zipped({"X.npy": bare}))
        with pytest.raises(ValueError, match=f"X{ending} cannot be read"):
            read_rows(folder)


def test_more_may_not_be_unpacked_than_a_file_claims():
    with pytest.raises(ValueError, match="claims 268435"):
        read_npz(trust_files._zipped({}, bomb=("X.npy", b"", 2**28)))
