"""Damaged and hostile files are refused, without running code and without the memory that their headers claim."""

import io
import json
import zipfile

import numpy as np
import pytest

from benchmarks import trust_files
from convexbn import BatchNormNetwork, ConvexBNRegressor, GatedNetwork, Problem, read_rows, solve_column_generation
from convexbn._utils.npz import read_npz, write_npz
from convexbn._utils.whole_file import whole_file
from convexbn.solvers._checkpoint import _digest
from tests.networks import X, Y, weight_normalized

CLAIMS = [(10**12,), (10**6, 10**6), (2**62, 4), (-1, 5), (10**30,)]
NETWORK = BatchNormNetwork.at_initialization(X, 2, n_outputs=1, random_state=0)


def test_cases_of_every_kind_are_refused_or_work(tmp_path):
    found = trust_files.run(100, seed=1, folder=tmp_path)
    assert not found["failures"]
    assert found["outcomes"]["refused"] > 60
    assert found["largest_mebibytes"] < trust_files.MEBIBYTES
    assert not list(tmp_path.iterdir())


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


@pytest.mark.parametrize("shape", CLAIMS)
@pytest.mark.parametrize("dtype", ["<f8", "<U100000"])
def test_a_header_that_claims_too_much(shape, dtype, tmp_path):
    claimed = trust_files._npy(shape, dtype, bytes(64))
    for ending, save in (
        (".npz", lambda path: zipped(path, X=claimed)),
        (".npy", lambda path: path.write_bytes(claimed)),
    ):
        path = tmp_path / f"X{ending}"
        save(path)
        for load in (BatchNormNetwork.load, ConvexBNRegressor.load) if ending == ".npz" else ():
            with pytest.raises(ValueError, match=r"X\.npz is damaged"):
                load(path)
        with pytest.raises(ValueError, match=f"X{ending} cannot be read"):
            read_rows(path)


@pytest.mark.parametrize("header", ["(" * 3000, "{" * 5000, "-" * 9000, "'", "1" + "+1j" * 2000])
def test_headers_that_end_a_parser(header, tmp_path):
    path = tmp_path / "X.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header.encode())
    with pytest.raises(ValueError, match=r"X\.npy cannot be read"):
        read_rows(path)


def test_nothing_more_is_unpacked_than_is_claimed(tmp_path):
    bomb = trust_files._zipped({}, bomb=("X.npy", b"", 2**28))
    with pytest.raises(ValueError, match="claims 268435456 bytes"):
        read_npz(bomb)
    place = bomb.find(b"PK\x01\x02") + 24
    lying = bomb[:place] + (100).to_bytes(4, "little") + bomb[place + 4 :]
    outcome, _, mebibytes = trust_files.attempt(
        trust_files.Kind("bytes", "", None, lambda path: read_npz(lying)), "", tmp_path / "alarm"
    )
    assert outcome != "loaded"
    assert mebibytes < 10


def test_arrays_keep_their_types_and_order(tmp_path):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "text": np.array("text"),
        "labels": np.array(["a", "bc"]),
        "bytes": np.frombuffer(b"facts", dtype=np.uint8),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "flags": np.array([True, False]),
    }
    write_npz(tmp_path / "arrays.npz", arrays)
    found = read_npz((tmp_path / "arrays.npz").read_bytes())
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].flags.writeable) == (array.dtype, True)


def test_strings_in_json_take_their_own_length_alone(tmp_path):
    path = tmp_path / "network.json"
    NETWORK.save(path)
    content = json.loads(path.read_text())
    many = ["a"] * 20_000 + ["b" * 200_000]  # 15 GiB as an array of strings of one length
    for entry in ({"shape": [20_001], "values": many}, many, {"shape": [1], "values": [10**400]}):
        path.write_text(json.dumps(content | {"gamma": entry}))
        with pytest.raises(ValueError, match=r"network\.json is damaged"):
            BatchNormNetwork.load(path)


def test_shapes_of_gated_networks_fit():
    one = np.ones(1)
    with pytest.raises(ValueError, match=r"gates must have shape \(1, 1\), got \(1, 2\)"):
        GatedNetwork(np.ones((1, 2)), one, np.ones((1, 1)), one, np.ones((1, 1)), one)


def test_networks_of_complex_numbers_are_refused():
    network = weight_normalized()
    with pytest.raises(ValueError, match="gamma must hold real numbers"):
        type(network)(network.weights, network.gamma + 1j, network.bias, network.output_weights, network.intercept)


@pytest.mark.parametrize(
    "change",
    [
        lambda learned: learned.update(predict=3),
        lambda learned: learned.update(n_features_in_=9),
        lambda learned: learned.update(n_features_in_={"type": "tuple", "values": []}),
        lambda learned: learned["network_"]["arrays"].update(gamma={"type": "array", "name": "facts"}),
    ],
)
def test_an_estimator_that_does_not_work_is_refused(change, tmp_path):
    path = tmp_path / "model.npz"
    ConvexBNRegressor(0.5, tol=1e-1).fit(X, Y).save(path)
    arrays = read_npz(path.read_bytes())
    facts = json.loads(arrays["facts"].tobytes())
    change(facts["estimator"]["learned"])
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    write_npz(path, arrays)
    with pytest.raises(ValueError, match="what it holds is no ConvexBNRegressor"):
        ConvexBNRegressor.load(path)


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.update(random=3),
        lambda kept: kept.update(history=3),
        lambda kept: kept["state"].update(kind="Path"),
        lambda kept: kept["state"]["fields"].update(command="true"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change, forged, tmp_path):
    path, problem = tmp_path / "run", Problem(X, Y, weight_decay=0.5)
    options = {"checkpoint": path, "tol": 1e-2, "prove": False, "random_state": 0}
    solve_column_generation(problem, **options)
    contents = read_npz(path.read_bytes())
    facts, digest = json.loads(str(contents["facts"])), contents.pop("digest")
    (run,) = facts["runs"]
    kept = dict(run[1]["round"]["items"])
    change(kept)
    run[1]["round"]["items"] = list(kept.items())
    contents["facts"] = np.array(json.dumps(facts))
    write_npz(path, contents | {"digest": np.array(_digest(contents)) if forged else digest})
    with pytest.raises(ValueError, match=r"checkpoint='.*run' is damaged"):
        solve_column_generation(problem, **options)


def write_half(path, error):
    with whole_file(path) as file:
        file.write(b"half")
        raise error


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"former")
    for error in (KeyboardInterrupt(), MemoryError(), OSError(28, "No space left on device")):
        with pytest.raises(type(error)) as caught:
            write_half(path, error)
        assert path.read_bytes() == b"former"
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert str(caught.value).endswith(f"No space left on device: '{path}'")
    link = tmp_path / "link"
    link.symlink_to(path)
    with whole_file(link) as file:
        file.write(b"new")
    assert (link.is_symlink(), path.read_bytes()) == (True, b"new")


def test_a_stream_of_pickles_is_no_array(tmp_path):
    alarm, path = tmp_path / "alarm", tmp_path / "X.npz"
    file = io.BytesIO()
    np.save(file, np.array([trust_files.Alarm(alarm)], dtype=object))
    zipped(path, X=file.getvalue())
    for load in (BatchNormNetwork.load, ConvexBNRegressor.load, read_rows):
        with pytest.raises(ValueError, match=r"X\.npz"):
            load(path)
    assert not alarm.exists()
