"""Are damaged and hostile files refused, without running code and without the memory that their headers claim?

Good files of every kind that convexbn reads are truncated, overwritten, and written anew with what an attacker would
put there. Each is to be refused by a ValueError that names the file, or to hold an object that works, within two
seconds and 200 MiB. A case is drawn from the seed and its number alone.
"""

import argparse
import io
import json
import pickle
import resource
import struct
import tempfile
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import environment, target, write_json
from benchmarks.record import run_numbers
from convexbn import (
    BatchNormNetwork,
    ConvBatchNormNetwork,
    ConvexBNClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNStackRegressor,
    ConvGatedNetwork,
    DeepNetwork,
    GatedNetwork,
    GDNPClassifier,
    PostActivationBatchNormNetwork,
    Problem,
    RandomBatchNormLayers,
    WeightNormNetwork,
    read_rows,
    solve_column_generation,
)

SECONDS, MEBIBYTES = 2.0, 200
CASES, _QUICK = 100, 20  # that are kept together, and in a quick run
RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 3))
Y = np.abs(X[:, 0]) - X[:, 1]
IMAGES = RNG.standard_normal((6, 1, 4, 4))


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a good one is written, and how it is read and what was read is used."""

    name: str
    ending: str
    write: Callable[[Path], Any]
    use: Callable[[Path], Any]


def _estimator(model: Any, data: np.ndarray, y: Any, method: str = "predict") -> Kind:
    kind = type(model)
    fitted = model.fit(data, y)
    return Kind(f"estimator {kind.__name__}", ".npz", fitted.save, lambda path: getattr(kind.load(path), method)(data))


def _network(network: Any, data: np.ndarray, ending: str) -> Kind:
    kind = type(network)

    def use(path: Path) -> np.ndarray:
        loaded = kind.load(path)
        first = next(iter((*getattr(loaded, "layers", ()), loaded)))
        if data.ndim == 2 and first.weights.shape[1] != data.shape[1]:  # another network
            return loaded.predict(np.zeros((2, first.weights.shape[1])))
        return loaded.predict(data)

    return Kind(f"network {kind.__name__}{ending}", ending, network.save, use)


def _checkpoint() -> Kind:
    problem = Problem(X, Y, weight_decay=0.05)
    options = {"prove": False, "random_state": 0}
    return Kind(
        "checkpoint",
        "",
        lambda path: solve_column_generation(problem, checkpoint=path, **options),
        lambda path: solve_column_generation(problem, checkpoint=path, **options).neurons.outputs(problem.Z),
    )


def _parquet(path: Path) -> None:
    from pyarrow import parquet, table

    parquet.write_table(table({"a": X[:, 0], "b": X[:, 1], "y": Y}), path)


def _read_all(path: Path, **options: Any) -> np.ndarray:
    source = read_rows(path, **options)
    return np.concatenate([block.X for block in source])


@cache
def kinds() -> tuple[Kind, ...]:
    """All kinds of files, made from tiny models."""
    first = BatchNormNetwork.at_initialization(X, 4, n_outputs=1, random_state=0)
    second = PostActivationBatchNormNetwork.at_initialization(first.hidden(X), 3, n_outputs=1, random_state=0)
    weight = WeightNormNetwork(first.weights, first.gamma, first.bias, first.output_weights, first.intercept)
    images = ConvBatchNormNetwork.at_initialization(IMAGES, 3, kernel_size=(2, 2), n_outputs=1, random_state=0)
    gated_images = ConvexBNConvRegressor(0.1, activation="gated_relu", n_patterns=4).fit(IMAGES, Y[:6]).network_
    gated = ConvexBNRegressor(0.1, activation="gated_relu", n_patterns=4).fit(X, Y).network_
    assert isinstance(gated, GatedNetwork)
    assert isinstance(gated_images, ConvGatedNetwork)
    after = PostActivationBatchNormNetwork.at_initialization(X, 3, n_outputs=1, random_state=0)
    dense = [first, after, weight, gated, DeepNetwork((first,), second)]
    networks = [_network(network, X, ending) for network in dense for ending in (".npz", ".json")]
    networks += [
        _network(network, IMAGES, ending) for network in (images, gated_images) for ending in (".npz", ".json")
    ]
    labels = np.array(["a", "b"])[(Y > 0).astype(int)]
    stack = ConvexBNStackRegressor(ConvexBNRegressor(0.1), n_stages=1, features=RandomBatchNormLayers((3,)))
    return (
        *networks,
        _estimator(ConvexBNRegressor(0.1), X, Y),
        _estimator(ConvexBNClassifier(0.1), X, labels),
        _estimator(ConvexBNConvRegressor(0.1, kernel_size=(2, 2)), IMAGES, Y[:6]),
        _estimator(stack, X, Y),
        _estimator(GDNPClassifier(max_iter=20, tol=10.0), X, labels),
        _estimator(RandomBatchNormLayers((3,)), X, None, "transform"),
        _checkpoint(),
        Kind("rows .npy", ".npy", lambda path: np.save(path, X), _read_all),
        Kind("rows .npz", ".npz", lambda path: np.savez(path, X=X, y=Y), _read_all),
        Kind("rows .parquet", ".parquet", _parquet, lambda path: _read_all(path, target="y")),
    )


class Alarm:
    """What a pickle of it runs leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Attack:
    """Damage done to good files.

    Parameters
    ----------
    rng : Generator
        Source of what is drawn.
    alarm : Path
        The file that executed code leaves behind.
    """

    def __init__(self, rng: np.random.Generator, alarm: Path):
        self.rng, self.alarm = rng, alarm

    def damaged(self, good: bytes) -> tuple[str, bytes]:
        """Name of an attack that fits the file, and what it makes of it."""
        attacks: list[Callable[[bytes], bytes]] = [self.truncated, self.flipped, self.overwritten, self.doubled]
        attacks += [self.pickled, self.noise, self.npy]
        if good.startswith(b"PK"):
            attacks += [self.arrays_of_objects, self.claimed_shape, self.bomb, self.other_members, self.wrong_shape]
            attacks += [self.member_sizes, self.structured, self.long_header]
            if "facts.npy" in zipfile.ZipFile(io.BytesIO(good)).namelist():
                attacks += [self.facts] * 6
        elif good.startswith(b"{"):
            attacks += [self.json] * 8
        attack = attacks[self.rng.integers(len(attacks))]
        return attack.__name__, attack(good)

    def truncated(self, good: bytes) -> bytes:
        """The beginning of the file."""
        return good[: self.rng.integers(len(good))]

    def flipped(self, good: bytes) -> bytes:
        """A few bits of another value."""
        changed = bytearray(good)
        for place in self.rng.integers(len(good), size=self.rng.integers(1, 9)):
            changed[place] ^= 1 << self.rng.integers(8)
        return bytes(changed)

    def overwritten(self, good: bytes) -> bytes:
        """Random bytes in some place."""
        start = self.rng.integers(len(good))
        size = self.rng.integers(1, 65)
        return good[:start] + self.rng.bytes(size) + good[start + size :]

    def doubled(self, good: bytes) -> bytes:
        """A part that comes twice."""
        start, stop = np.sort(self.rng.integers(len(good), size=2))
        return good[:stop] + good[start:]

    def noise(self, good: bytes) -> bytes:
        """Random bytes after the first ones."""
        return good[: self.rng.integers(0, 12)] + self.rng.bytes(self.rng.integers(1, 500))

    def pickled(self, good: bytes) -> bytes:
        """A pickle that runs code."""
        return pickle.dumps(Alarm(self.alarm))

    def npy(self, good: bytes) -> bytes:
        """A bare array whose header claims too much."""
        return _npy(self._shape(), "<f8", bytes(64))

    def arrays_of_objects(self, good: bytes) -> bytes:
        """An array that holds a pickle."""
        members = _members(good)
        file = io.BytesIO()
        np.save(file, np.array([Alarm(self.alarm)], dtype=object))
        members[self._one_of(members)] = file.getvalue()
        return _zipped(members)

    def claimed_shape(self, good: bytes) -> bytes:
        """An array whose header claims too much."""
        members = _members(good)
        dtype = self._one_of(["<f8", "|u1", "<U100000", "|V1000000", "<c16"])
        members[self._one_of(members)] = _npy(self._shape(), dtype, bytes(64))
        return _zipped(members)

    def long_header(self, good: bytes) -> bytes:
        """A header that ends a parser."""
        members = _members(good)
        header = self._one_of(["(" * 3000, "9" * 9000, "{" * 5000, "-" * 9000, "[0," * 3000, "1" + "+1j" * 2000])
        body = b"\x93NUMPY\x02\x00" + struct.pack("<I", self._one_of([len(header), 2**32 - 1])) + header.encode()
        members[self._one_of(members)] = body
        return _zipped(members)

    def structured(self, good: bytes) -> bytes:
        """An array of another type."""
        members = _members(good)
        file = io.BytesIO()
        array = self._one_of(
            [
                np.zeros(3, dtype=[("a", "f8"), ("b", "U5")]),
                np.array(["1.0", "nan"]),
                np.array(["2020-01-01"], dtype="M8[D]"),
                np.array(1j),
                np.zeros((2, 0)),
                np.full((3, 3), np.nan),
                np.full((3, 3), 1e308),
                np.array([True]),
                np.zeros((1,) * 32),
            ]
        )
        np.save(file, array)
        members[self._one_of(members)] = file.getvalue()
        return _zipped(members)

    def wrong_shape(self, good: bytes) -> bytes:
        """An array of another shape."""
        members = _members(good)
        file = io.BytesIO()
        np.save(file, self.rng.standard_normal(tuple(self.rng.integers(0, 5, self.rng.integers(0, 4)))))
        members[self._one_of(members)] = file.getvalue()
        return _zipped(members)

    def bomb(self, good: bytes) -> bytes:
        """Zeros of 256 MiB in 256 KiB, as an array or as the header of one."""
        members = _members(good)
        name = self._one_of(members)
        header = _npy((2**25,), "<f8", b"") if self.rng.integers(2) else b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**28)
        del members[name]
        return _zipped(members, bomb=(name, header, 2**28))

    def other_members(self, good: bytes) -> bytes:
        """Arrays under each other's names."""
        members = _members(good)
        names = list(members)
        self.rng.shuffle(names)
        changed = dict(zip(names, members.values(), strict=True))
        if self.rng.integers(2):
            changed["../../escape.npy"] = b"x"
            changed["plain.txt"] = b"text"
        return _zipped(changed)

    def member_sizes(self, good: bytes) -> bytes:
        """Sizes in the directory of the zip that are not those of its members."""
        changed, place = bytearray(good), good.find(b"PK\x01\x02")
        struct.pack_into("<I", changed, place + self._one_of([20, 24]), int(self.rng.integers(0, 2**32 - 1)))
        return bytes(changed)

    def facts(self, good: bytes) -> bytes:
        """Another value anywhere in the JSON of an estimator or a checkpoint."""
        members = _members(good)
        array = np.load(io.BytesIO(members["facts.npy"]))
        as_text = array.dtype.kind == "U"
        text = self.json(str(array).encode() if as_text else array.tobytes())
        file = io.BytesIO()
        np.save(file, np.array(text.decode()) if as_text else np.frombuffer(text, dtype=np.uint8))
        members["facts.npy"] = file.getvalue()
        return _zipped(members)

    def json(self, good: bytes) -> bytes:
        """Another value anywhere in a JSON text."""
        content = json.loads(good)
        places = list(_places(content))
        where, key = places[self.rng.integers(len(places))]
        hostile = "@hostile@"
        if self.rng.integers(5) == 0:
            del where[key]
            return json.dumps(content).encode()
        if isinstance(where, dict) and self.rng.integers(8) == 0:
            where[hostile] = where.pop(key)
            return json.dumps(content).encode()
        where[key] = hostile
        value = self._one_of(
            [
                "NaN", "Infinity", "1e400", "-1", "0", "null", "true", '""', "[]", "{}", "1" * 4000, "1" * 6000,
                "[" * 3000 + "]" * 3000, "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "[1e12]",
                "[1000000, 1000000, 1000000]", '"' + "x" * 100_000 + '"',
                "[" + '"a",' * 20_000 + '"' + "b" * 200_000 + '"]',
                '{"type": "array", "name": "array0"}', '{"type": "array", "name": "nothing"}',
                '{"type": "path", "value": "/etc/passwd"}', '{"type": "objects", "shape": [1e12], "values": []}',
                '{"type": "objects", "shape": [0, 1000000000000], "values": []}',
                '{"type": "estimator", "kind": "ConvexBNRegressor", "parameters": {}, "learned": {}}',
                '{"type": "record", "kind": "Huber", "fields": {"delta": -1}}',
                '{"type": "record", "kind": "Place", "fields": {"example": 3, "follows": true}}',
                '{"type": "dict", "items": [[{"type": "dict", "items": []}, 1]]}',
                '{"type": "network", "kind": "DeepNetwork", "arrays": {}}', '{"shape": [2], "values": [1, "2"]}',
                '{"shape": [1000000000000, 0], "values": []}', '{"shape": [-1], "values": [1, 2, 3]}', '"\\ud800"',
                "-0.0", "1e-320", "18446744073709551616", "3.5",
            ]
        )  # fmt: skip
        return json.dumps(content).replace(f'"{hostile}"', value).encode()

    def _shape(self) -> tuple[int, ...]:
        return self._one_of(
            [(10**12,), (10**6, 10**6), (2**62, 4), (-1, 5), (2**40, 0), (10**30,), (3, 10**9), (2**31,)]
        )

    def _one_of(self, choices: Any) -> Any:
        choices = list(choices)
        return choices[self.rng.integers(len(choices))]


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Containers and keys of all values of a JSON text."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _npy(shape: tuple[int, ...], dtype: str, data: bytes) -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def _members(good: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        return {name: file.read(name) for name in file.namelist()}


def _zipped(members: dict[str, bytes], bomb: tuple[str, bytes, int] | None = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
        if bomb is not None:
            name, header, size = bomb
            with file.open(name, "w", force_zip64=True) as member:
                member.write(header)
                for _ in range(size // 2**22):
                    member.write(bytes(2**22))
    return stream.getvalue()


def attempt(kind: Kind, path: Path, alarm: Path) -> tuple[str, float, float]:
    """Read a damaged file: how that ended, its CPU seconds, and the mebibytes that it took at most."""
    tracemalloc.start()
    start = time.process_time()
    try:
        used = np.asarray(kind.use(path))
        outcome = "loaded" if used.dtype.kind != "f" or np.isfinite(used).all() else "FAILED: outputs are not finite"
    except ValueError as error:
        named = str(path) in str(error)
        outcome = "refused" if named else f"FAILED: ValueError without the file: {str(error)[:120]}"
    except Exception as error:
        outcome = f"FAILED: {type(error).__name__}: {str(error)[:120]}"
    seconds = time.process_time() - start
    mebibytes = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    if alarm.exists():
        outcome = "FAILED: code was executed"
        alarm.unlink()
    elif outcome in ("refused", "loaded"):
        if seconds > SECONDS:
            outcome = f"FAILED: took more than {SECONDS:g} s"
        elif mebibytes > MEBIBYTES:
            outcome = f"FAILED: took more than {MEBIBYTES} MiB"
    return outcome, seconds, mebibytes


def run(n_cases: int, seed: int, folder: Path, first: int = 0, report: Callable[[str], Any] = print) -> dict[str, Any]:
    """Counts of outcomes over the cases from `first` on; every failure is reported with its number."""
    outcomes: Counter[str] = Counter()
    by_attack: dict[str, Counter[str]] = {}
    failures: list[dict[str, Any]] = []
    slowest, largest = 0.0, 0.0
    good, all_kinds = [], kinds()
    for number, kind in enumerate(all_kinds):
        path = folder / f"X-{number}{kind.ending}"
        kind.write(path)
        outcome, _, _ = attempt(kind, path, folder / "alarm")
        assert outcome == "loaded", (kind.name, outcome)
        good.append(path.read_bytes())
        path.unlink()
    for case in range(first, first + n_cases):
        rng = np.random.default_rng([seed, case])
        number = int(rng.integers(len(good)))
        kind = all_kinds[number]
        attack, content = Attack(rng, folder / "alarm").damaged(good[number])
        path = folder / f"X-{case}{kind.ending}"
        path.write_bytes(content)
        outcome, seconds, mebibytes = attempt(kind, path, folder / "alarm")
        path.unlink(missing_ok=True)
        slowest, largest = max(slowest, seconds), max(largest, mebibytes)
        outcomes[outcome.partition(":")[0]] += 1
        by_attack.setdefault(attack, Counter())[outcome.partition(":")[0]] += 1
        if outcome.startswith("FAILED"):
            failures.append({"case": case, "kind": kind.name, "attack": attack, "outcome": outcome})
            report(f"case {case}, {kind.name}, {attack}: {outcome}")
    return {
        "cases": n_cases,
        "outcomes": dict(outcomes),
        "by_attack": {attack: dict(counts) for attack, counts in sorted(by_attack.items())},
        "slowest_seconds": slowest,
        "largest_mebibytes": largest,
        "failures": failures,
    }


def main() -> None:
    """Run the cases that are not done yet, with a limit of the memory of the process, and write the counts."""

    def run_from(first: int, args: argparse.Namespace) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return run(_QUICK if args.quick else CASES, args.seed, Path(folder), first)

    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
    args, done = run_numbers("trust_files", __doc__, run_from, unit="cases", count=4000, steps=(CASES, _QUICK), seed=0)
    outcomes = sum((Counter(found["outcomes"]) for found in done), Counter())
    by_attack: dict[str, Counter[str]] = {}
    for attack, counts in ((attack, counts) for found in done for attack, counts in found["by_attack"].items()):
        by_attack.setdefault(attack, Counter()).update(counts)
    results = {
        "cases": sum(outcomes.values()),
        "outcomes": dict(outcomes),
        "by_attack": {attack: dict(counts) for attack, counts in sorted(by_attack.items())},
        "slowest_seconds": max(found["slowest_seconds"] for found in done),
        "largest_mebibytes": max(found["largest_mebibytes"] for found in done),
        "failures": [failure for found in done for failure in found["failures"]],
    }
    statement = f"Damaged and hostile files: no code is run, refused or read in {SECONDS:g} s and {MEBIBYTES} MiB"
    most = f"{results['slowest_seconds']:.2f} s and {results['largest_mebibytes']:.0f} MiB"
    figure = f"{len(results['failures'])} failures in {results['cases']:,} files, at most {most}"
    results["targets"] = [target(statement, figure, not results["failures"])]
    write_json(args.json, {"environment": environment(), "quick": args.quick, "seed": args.seed, **results})


if __name__ == "__main__":
    main()
