"""Sum up a record of cases, and the differences of `machine`, in benchmarks/results/trust.json."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, environment, target, write_json
from benchmarks.trust.machine import SAME_BITS, TOLERANCE, TUNED

_SMOKE = 1000  # cases, fewer of which are a smoke run
_ACCURACY = 1e-9  # of an objective, in units of the zero network's, beside what the last digit of the data makes of it
_RESOLUTION = 30  # times that change, which is the largest of a few random ones
_WRONG = 1e-9  # of the objective, by which a local bound is above a network that was found
_MISSTATED = 1e-6  # in units of the zero network's, by which an objective is not that of its neurons in long double
_WORST = 5


def main() -> None:
    """Read the record, write the result file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust.summary", description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--machine", type=Path, help="the file that benchmarks.trust.machine wrote")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.record.read_text("utf-8").splitlines()]
    machine = json.loads(args.machine.read_text("utf-8")) if args.machine else {}
    write_json(args.output / "trust.json", summed_up(lines, machine))


def summed_up(lines: list[dict[str, Any]], machine: dict[str, Any]) -> dict[str, Any]:
    """Counts, worst cases, and the rows of the summary; design matrices that are no arrays are counted apart."""
    of_arrays, of_others = (
        [line for line in lines if (line.get("kind", "array") == "array") == arrays] for arrays in (True, False)
    )
    campaign, others = _campaign(of_arrays), _campaign(of_others) if of_others else {}
    return {
        "environment": environment(),
        "quick": len(of_arrays) < _SMOKE,
        "campaign": campaign,
        "other_kinds": others,
        "machine": machine,
        "targets": _targets(campaign, others, machine),
    }


def _campaign(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and worst cases."""
    solved = [line for line in lines if "scope" in line]
    return {
        "cases": len(lines),
        "refused": sum("refused" in line for line in lines),
        "errors": [line["number"] for line in lines if "error" in line],
        "misstated": [line["number"] for line in solved if line["objective_error"] > _MISSTATED],
        "cpu_seconds": sum(line["seconds"] for line in lines),
        "rows": [min(line["n"] for line in lines), max(line["n"] for line in lines)],
        "scopes": dict(Counter(line["scope"] for line in solved)),
        "oracles": dict(Counter(str(line["oracle"]) for line in solved)),
        "kinds": dict(Counter(line.get("kind", "array") for line in solved)),
        "normalizations": dict(Counter(line["normalization"] for line in solved)),
        "losses": dict(Counter(line["loss"] for line in solved)),
        "proved": {
            "bounds": len(solved),
            "undercut": [line["number"] for line in solved if line["global_undercut"] > 0],
            "unsupported": [line["number"] for line in solved if line.get("unsupported", 0) > 0],
            "closest": max(line["global_undercut"] for line in solved),
        },
        "local": _local(solved),
        "objectives": _objectives(solved),
    }


def _local(solved: list[dict[str, Any]]) -> dict[str, Any]:
    """How often a network was found below a local bound of a converged solve, and by what share of its objective."""
    local = [line for line in solved if line["scope"] == "local" and line["status"] == "CONVERGED"]
    shares = np.array([line["undercut"] * (line["zero"] or 1.0) / line["objective"] for line in local])
    wrong = shares[shares > _WRONG]
    worst = sorted(zip(-shares, (line["number"] for line in local), strict=True))[:_WORST]
    return {
        "bounds": len(local),
        "wrong": len(wrong),
        "median_share": float(np.median(wrong)) if len(wrong) else 0.0,
        "worst": [{"number": number, "share": -share} for share, number in worst],
    }


def _objectives(solved: list[dict[str, Any]]) -> dict[str, Any]:
    """Objectives of networks on the data, by the library and by PyTorch, beside those of certificates."""
    found: dict[str, Any] = {}
    for name in ("network_error", "torch_error"):
        errors = [(line[name], line["resolution"], line["number"]) for line in solved if line.get(name) is not None]
        allowed = [(error, number) for error, unit, number in errors if error > _ACCURACY + _RESOLUTION * unit]
        clear = [error for error, unit, _ in errors if unit < _ACCURACY]
        found[name] = {
            "objectives": len(errors),
            "above": sorted(allowed, reverse=True)[:_WORST],
            "clear": len(clear),
            "largest_where_clear": max(clear, default=0.0),
        }
    return found


def _proofs(name: str, campaign: dict[str, Any]) -> dict[str, Any]:
    """The row of a campaign's failures."""
    proved = campaign["proved"]
    failures = len(proved["undercut"]) + len(proved["unsupported"]) + len(campaign["errors"] + campaign["misstated"])
    measured = f"{failures} failures in {campaign['cases']:,} cases ({proved['bounds']:,} proved bounds)"
    return target(name, measured, failures == 0)


def _targets(campaign: dict[str, Any], others: dict[str, Any], machine: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the summary."""
    local, by_torch = campaign["local"], campaign["objectives"]["torch_error"]
    rows = [
        _proofs("Adversarial certificates: no network is below a bound called proved", campaign),
        target(
            "Objective of the PyTorch module as certified, to 1e-9 of the zero network's",
            f"at most {by_torch['largest_where_clear']:.1e} in {by_torch['clear']:,} cases whose data decides it",
            by_torch["largest_where_clear"] <= _ACCURACY and not by_torch["above"],
        ),
        target(
            "Local gaps: how often a better network was known",
            f"{local['wrong']} of {local['bounds']} "
            f"(by {100 * local['median_share']:.2g}% of the objective in the median)",
            None,
        ),
    ]
    if others:
        rows.insert(
            1, _proofs("Rows in blocks, sparse or of PyTorch: no network is below a bound called proved", others)
        )
    if machine:
        pairs = [(model, name, change) for model, changes in machine.items() for name, change in changes.items()]
        bits = [change["same_bits"] for _, name, change in pairs if name in SAME_BITS]
        fitted, tuned = (
            max((change["fitted"] for model, _, change in pairs if (model in TUNED) == of_tuned), default=0.0)
            for of_tuned in (False, True)
        )
        rows += [
            target(
                "The same network again, on two BLAS threads, with two jobs: all bits equal",
                f"{sum(bits)} of {len(bits)} pairs",
                all(bits),
            ),
            target(
                f"Rows or columns permuted, targets or columns rescaled: the same fit to {TOLERANCE:g}",
                f"largest difference {fitted:.1e}; {tuned:.1e} where the weight decay is chosen, short of the optimum",
                fitted <= TOLERANCE,
            ),
        ]
    return rows


if __name__ == "__main__":
    main()
