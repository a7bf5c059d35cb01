"""Run cases that are not in the record yet, the quick ones first, and append a line for each."""

import argparse
import json
from pathlib import Path

from benchmarks.harness import plain, threads
from benchmarks.trust.cases import KINDS, Case
from benchmarks.trust.check import MAX_TIME, check


def main() -> None:
    """Read the arguments, run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--cases", type=int, default=100, help="cases 0 to N - 1 of the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the record, a line a case")
    parser.add_argument("--max-time", type=float, default=MAX_TIME, help="seconds of a solve")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("I", "OF"), help="every OF-th case from I"
    )
    parser.add_argument("--kind", choices=KINDS, default="array", help="of the design matrix")
    args = parser.parse_args()
    run(args.cases, args.seed, args.out, max_time=args.max_time, part=tuple(args.part), kind=args.kind)


def run(
    count: int,
    seed: int,
    out: Path,
    *,
    max_time: float = MAX_TIME,
    part: tuple[int, int] = (0, 1),
    most: int | None = None,
    kind: str = "array",
) -> None:
    """Check the cases of a part that the file does not hold, at most so many of the quickest, and append them.

    Normalization after the ReLU takes arrays alone.
    """
    lines = map(json.loads, out.read_text("utf-8").splitlines() if out.exists() else [])
    done = {line["number"] for line in lines if line.get("kind", "array") == kind}
    numbers = (number for number in range(part[0], count, part[1]) if number not in done)
    cases = sorted((Case(seed, number, kind) for number in numbers), key=lambda case: case.cost)
    cases = [case for case in cases if kind == "array" or case.normalization != "after"]
    with threads(1):
        for case in cases[:most]:
            line = json.dumps(plain(check(case, max_time)))
            with out.open("a", encoding="utf-8") as record:
                record.write(line + "\n")


if __name__ == "__main__":
    main()
