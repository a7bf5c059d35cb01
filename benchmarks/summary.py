"""Write the table of all measured results into benchmarks/README.md, and the rows that a newcomer asks about first into
the README, between two markers.

Run with ``python -m benchmarks.summary`` after the benchmarks; it reads benchmarks/results/*.json and nothing else.
"""

import argparse
import json
import re
from pathlib import Path

from benchmarks.harness import RESULTS

HERE = Path(__file__).parent
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
README, ALL = HERE.parent / "README.md", HERE / "README.md"
RESULT_FILES = (
    "relu_vs_peers",
    "gated_vs_peers",
    "gated_vs_peers_gpu",
    "gated_paths",
    "scaling",
    "path",
    "solves",
    "trust",
    "trust_inputs",
    "trust_faults",
    "trust_files",
    "trust_mutants",
    "tabular",
    "defaults",
    "scale",
    "cifar10",
    "cifar10_gpu",
    "gdnp",
    "deep_gdnp",
    "weight_norm",
    "identity_mapping",
    "deep_identity_mapping",
    "deep_weight_norm",
)
# How the statements begin that a newcomer asks about first: those of the README.
HEADLINES = {
    "relu_vs_peers": ("R1: n·objective ≤ 24.003 in",),
    "gated_vs_peers": ("R2, gated",),
    "path": ("R1: 50 values",),
    "trust": ("Adversarial certificates", "Local gaps"),
    "tabular": (
        "regression, all by default: within",
        "regression, all by default: average rank",
        "classification, all by default: within",
        "classification, all by default: average rank",
        "a default fit takes",
    ),
    "scale": (
        "fast preset, rows in memory",
        "dask at n = 1e+06",
        "test error of ours sooner than by MLPRegressor, n = 1e+06",
    ),
    "cifar10": ("CIFAR-10, dense",),
}
VERDICTS = {True: "yes", False: "**no**", None: ""}


def read_results(folder: Path, names: tuple[str, ...]) -> dict[str, dict]:
    """Result files that exist, in the order of the questions; a smoke run is refused."""
    results = {
        name: json.loads((folder / f"{name}.json").read_text("utf-8"))
        for name in names
        if (folder / f"{name}.json").exists()
    }
    for name, result in results.items():
        if result["quick"]:
            raise SystemExit(f"{name}.json comes from a smoke run (--quick); measure it first.")
    return results


def table(results: dict[str, dict]) -> str:
    """Markdown: one row a target, and where and when it was measured."""
    rows = ["| to show | measured | reached |", "|---|---|---|"]
    for result in results.values():
        rows += [f"| {row['statement']} | {row['figure']} | {VERDICTS[row['met']]} |" for row in result["targets"]]
    machines = sorted(
        {f"{result['environment']['cpu']}, {result['environment']['cores']} cores" for result in results.values()}
    )
    days = sorted({result["environment"]["date"][:10] for result in results.values()})
    rows += ["", f"Measured on {' and '.join(machines)}; {' to '.join(days[:1] + days[1:][-1:])}."]
    return "\n".join(rows)


def headlines(results: dict[str, dict]) -> dict[str, dict]:
    """Keep the rows of the README, each of which has to be there once."""
    kept = {}
    for name, beginnings in HEADLINES.items():
        rows = [row for row in results[name]["targets"] if row["statement"].startswith(beginnings)]
        if len(rows) != len(beginnings):
            raise SystemExit(f"{name}.json must have one target each that begins with: {'; '.join(beginnings)}.")
        kept[name] = results[name] | {"targets": rows}
    return kept


def insert(text: str, block: str) -> str:
    """Replace what stands between the markers of a text."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"The README needs the markers {BEGIN} and {END} once each.")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", text)


def main() -> None:
    """Read, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    results = read_results(args.results, RESULT_FILES)
    missing = sorted(set(RESULT_FILES) - set(results))
    if missing:
        raise SystemExit(f"{', '.join(missing)} is not in {args.results}; run 'make benchmarks' first.")
    for page, rows in ((ALL, results), (README, headlines(results))):
        page.write_text(insert(page.read_text("utf-8"), table(rows)), "utf-8")
        print(f"Wrote the table of {', '.join(rows)} into {page}")


if __name__ == "__main__":
    main()
