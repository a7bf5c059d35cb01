"""Write the summary table of the measured results into the README, between its two markers.

Run with ``python -m benchmarks.summary`` after the benchmarks; it reads benchmarks/results/*.json and nothing else.
"""

import argparse
import json
import re
from pathlib import Path

from benchmarks.harness import RESULTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
ORDER = ("relu_vs_peers", "gated_vs_peers", "scaling", "path", "tabular", "deep_weight_norm")
VERDICTS = {True: "yes", False: "**no**", None: ""}


def read_results(folder: Path) -> dict[str, dict]:
    """Result files that exist, in the order of the questions; a smoke run is refused."""
    results = {
        name: json.loads((folder / f"{name}.json").read_text("utf-8"))
        for name in ORDER
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
    parser.add_argument("--readme", type=Path, default=README)
    args = parser.parse_args()
    results = read_results(args.results)
    if not results:
        raise SystemExit(f"No result files in {args.results}; run 'make benchmarks' first.")
    args.readme.write_text(insert(args.readme.read_text("utf-8"), table(results)), "utf-8")
    print(f"Wrote the table of {', '.join(results)} into {args.readme}")


if __name__ == "__main__":
    main()
