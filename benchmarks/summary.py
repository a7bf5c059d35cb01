"""Write the summary tables of the measured results between two markers: the convex side's into the README, that of
the gradient-trained side into benchmarks/README.md.

Run with ``python -m benchmarks.summary`` after the benchmarks; it reads benchmarks/results/*.json and nothing else.
"""

import argparse
import json
import re
from pathlib import Path

from benchmarks.harness import RESULTS

HERE = Path(__file__).parent
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
PAGES = {
    HERE.parent / "README.md": (
        "relu_vs_peers",
        "gated_vs_peers",
        "gated_paths",
        "scaling",
        "path",
        "trust",
        "tabular",
        "scale",
        "cifar10",
        "cifar10_gpu",
    ),
    HERE / "README.md": (
        "gdnp",
        "deep_gdnp",
        "weight_norm",
        "identity_mapping",
        "deep_identity_mapping",
        "deep_weight_norm",
    ),
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
    for page, names in PAGES.items():
        results = read_results(args.results, names)
        if not results:
            raise SystemExit(f"None of {', '.join(names)} is in {args.results}; run 'make benchmarks' first.")
        page.write_text(insert(page.read_text("utf-8"), table(results)), "utf-8")
        print(f"Wrote the table of {', '.join(results)} into {page}")


if __name__ == "__main__":
    main()
