"""Which mistakes in the mathematics would the tests find?

Every mutant of `benchmarks.trust.mutants` is put into a copy of the package, never into the checkout, and the tests
that should find it are run there, until one fails. Those that failed have to pass on the copy as it is.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import environment, parse_arguments, target, write_json
from benchmarks.record import Record
from benchmarks.trust.mutants import MUTANTS, Mutant

CHECKOUT = Path(__file__).parents[1]
SECONDS = 300  # of the tests of one mutant
_SECONDS_OF_ALL = 3600  # of all tests without a mistake
_UNCHANGED = "unchanged"
_COPIED = ("convexbn", "tests", "benchmarks")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


def mutated(mutant: Mutant) -> str | None:
    """The text of the file with the mistake, or None if the text that it replaces does not occur exactly once."""
    text = (CHECKOUT / "convexbn" / mutant.file).read_text("utf-8")
    return text.replace(mutant.old, mutant.new) if text.count(mutant.old) == 1 else None


def run(mutant: Mutant, folder: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Outcome of the tests of a mutant in a copy, which is restored: killed, by which test, survived, or not found."""
    text, changed = mutated(mutant), folder / "convexbn" / mutant.file
    if text is None:
        return {"outcome": "text not found"}
    changed.write_text(text, "utf-8")
    try:
        return tested(folder, mutant.arguments, seconds)
    finally:
        shutil.copy2(CHECKOUT / "convexbn" / mutant.file, changed)  # its old time, too, by which bytecode is made anew


@contextmanager
def copied() -> Iterator[Path]:
    """A folder with a copy of package and tests."""
    with tempfile.TemporaryDirectory() as made:
        folder, ignore = Path(made), shutil.ignore_patterns("__pycache__", "results")
        for name in _COPIED:
            shutil.copytree(CHECKOUT / name, folder / name, ignore=ignore)
        shutil.copy(CHECKOUT / "pyproject.toml", folder)
        yield folder


def tested(folder: Path, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """Outcome of tests in a copy, and their seconds of the processor."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider"]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    options = {"PYTHONPATH": str(folder), **threads}
    before = _seconds_of_children()
    try:
        done = subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env=os.environ | options,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {
            "outcome": "killed",
            "by": f"the limit of {seconds:g} seconds",
            "seconds": _seconds_of_children() - before,
        }
    found = {"seconds": _seconds_of_children() - before}
    if done.returncode == 0:
        return {"outcome": "survived", **found}
    failed = _FAILED.search(done.stdout)
    if done.returncode != 1 or failed is None:
        raise RuntimeError(f"pytest {' '.join(arguments)} did not run:\n{done.stdout}\n{done.stderr}")
    return {"outcome": "killed", "by": failed[1], **found}


def summed_up(mutants: Sequence[Mutant], record: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Counts, every mutant with its outcome, and the row of the summary."""
    found = {mutant.name: record[mutant.name] for mutant in mutants}
    of_each = [
        {
            "file": mutant.file,
            "breaks": mutant.breaks,
            "old": mutant.old,
            "new": mutant.new,
            **{name: found[mutant.name].get(name) for name in ("outcome", "by", "seconds")},
            **{name: value for name in ("added", "equivalent") if (value := getattr(mutant, name))},
        }
        for mutant in mutants
    ]
    outcomes = Counter(entry["outcome"] for entry in of_each)
    unexplained = [
        mutant.name for mutant in mutants if found[mutant.name]["outcome"] != "killed" and not mutant.equivalent
    ]
    added = sum(bool(mutant.added) for mutant in mutants)
    explained = sum(bool(mutant.equivalent) for mutant in mutants)
    return {
        "mutants": len(mutants),
        "outcomes": dict(outcomes),
        "killed_by_tests_that_were_there": len(mutants) - added - explained - len(unexplained),
        "killed_by_tests_that_were_added": added,
        "explained": explained,
        "unexplained": unexplained,
        "cpu_seconds": sum(entry["seconds"] or 0.0 for entry in of_each),
        "of_each": of_each,
        "targets": [
            target(
                "Plausible mistakes in the mathematics: the tests find each that makes a difference",
                f"{outcomes['killed']} of {len(mutants)} found, {added} of them by tests that were added for them; "
                f"{explained} are explained as equivalent or beyond rounding",
                not unexplained,
            )
        ],
    }


def _seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _that_failed(mutants: Sequence[Mutant], record: dict[str, dict[str, Any]]) -> list[str]:
    """The tests that found a mutant, which must pass without it."""
    by = {record[mutant.name].get("by", "") for mutant in mutants}
    return sorted(test for test in by if test.startswith("tests/"))


def _holds(record: Record, name: str, entry: dict[str, Any]) -> bool:
    """Whether the record has an outcome of just this."""
    done = record.read().get(name, {})
    return all(done.get(key) == value for key, value in entry.items())


def main() -> None:
    """Run the mutants that are not done yet, or survived unexplained, each kept as it comes; write the counts."""

    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", help="mutants whose file and mistake contain this")

    args = parse_arguments("trust_mutants", __doc__, extra)
    record = Record(args.json.with_suffix(".mutants.json"))
    mutants = [mutant for mutant in MUTANTS if args.only in mutant.name][: 2 if args.quick else None]
    with copied() as folder:
        for mutant in mutants:
            entry = {"old": mutant.old, "new": mutant.new, "tests": mutant.arguments}
            killed = {**entry, "outcome": "killed"}
            if not _holds(record, mutant.name, entry if mutant.equivalent else killed):
                found = run(mutant, folder)
                record.add(mutant.name, entry | found)
                print(f"{found['outcome']:>9}  {mutant.name}  {found.get('by', '')}", flush=True)
        entry = {"tests": _that_failed(mutants, record.read())}
        if not _holds(record, _UNCHANGED, entry):
            found = tested(folder, entry["tests"], _SECONDS_OF_ALL)
            if found["outcome"] != "survived":
                raise RuntimeError(f"Tests fail without a mistake: {found}")
            record.add(_UNCHANGED, entry | found)
    write_json(args.json, {"environment": environment(), "quick": args.quick, **summed_up(mutants, record.read())})


if __name__ == "__main__":
    main()
