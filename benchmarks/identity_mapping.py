"""How often does a network with identity mapping find its teacher, from which starts, and through which phases?

Students x -> sum_j relu((e_j + w_j)·x) learn from teachers of the same form under Gaussian inputs, by gradient descent
on the population loss and by SGD on d fresh samples a step. So do students without the identity, from the same
matrices, and students without it of 2 d neurons, from two such matrices. Found means that the distance |W - W*| fell to
a hundredth of that at the start; without the identity, that to the nearest order of the teacher's neurons; of 2 d
neurons, which have no such order, that the square root of the loss did. Everything is deterministic, but for the
seconds.
"""

from pathlib import Path

import numpy as np

from benchmarks.harness import (
    caption,
    environment,
    parse_arguments,
    pyplot,
    target,
    threads,
    timed,
    write_json,
)
from convexbn.gradient.identity_mapping import draw_weights, find_phases, population_loss, train_identity_mapping

FOUND = 0.01  # of the distance at the start
SPECTRAL_NORM = 0.5  # of W and W*
IDENTITY, SGD, PLAIN, PLAIN_SGD = "gradient descent", "SGD", "without identity", "SGD without identity"
WIDE, WIDE_SGD = "without identity, 2 d neurons", "SGD without identity, 2 d neurons"
METHODS = (IDENTITY, SGD, PLAIN, PLAIN_SGD, WIDE, WIDE_SGD)
N_STEPS = 200  # times d, at most
FEWER = {50: 20, 100: 5}  # than 100 runs without identity, at d
LARGEST = {WIDE: 20}  # d, beyond which gradient descent takes too long
NORMS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)  # of W*


def options_of(method: str, d: int) -> dict:
    """Arguments of `train_identity_mapping`."""
    rate = 1 / d if method in (WIDE, WIDE_SGD) else 2 / d
    sizes = {"batch_size": d, "learning_rate": rate / 3} if "SGD" in method else {"learning_rate": rate}
    return {"identity": method in (IDENTITY, SGD), "n_steps": N_STEPS * d, **sizes}


def drawn(method: str, d: int, n_runs: int, norm: float = SPECTRAL_NORM) -> tuple[np.ndarray, np.ndarray]:
    """Starts and teachers of many runs; the teachers have the spectral norm."""
    start, teacher, more = (
        np.array([draw_weights(d, size, random_state=np.random.default_rng((which, seed))) for seed in range(n_runs)])
        for which, size in enumerate((SPECTRAL_NORM, norm, SPECTRAL_NORM))
    )
    return np.concatenate([start, more], axis=2) if method in (WIDE, WIDE_SGD) else start, teacher


def train_all(method: str, d: int, n_runs: int) -> dict:
    """Train from many starts; small ones at once, large ones one by one."""
    starts, teachers = drawn(method, d, n_runs)
    wide = starts.shape != teachers.shape
    at_once = n_runs if d < 50 else 1
    steps, phases = [], []
    for first in range(0, n_runs, at_once):
        chosen = slice(first, first + at_once)
        if wide:
            distances = np.sqrt(population_loss(starts[chosen], teachers[chosen], identity=False))
        else:
            distances = np.linalg.norm(starts[chosen] - teachers[chosen], axis=(1, 2))
        tol = FOUND * distances.min()
        _, trace = train_identity_mapping(
            starts[chosen], teachers[chosen], tol=tol, note_every=20, random_state=first, **options_of(method, d)
        )
        found = trace["distance"] <= FOUND * trace["distance"][0]
        steps += [int(trace.steps[column.argmax()]) if column.any() else np.inf for column in found.T]
        phases += [] if wide else [find_phases(trace, run) for run in range(found.shape[1])]
    return {
        "method": method,
        "d": d,
        "n_runs": n_runs,
        "n_found": int(np.isfinite(steps).sum()),
        "learning_rate": options_of(method, d)["learning_rate"],
        "steps": steps,
        "one_point_convexity": [phase.one_point_convexity for phase in phases],
        "rate": [phase.rate for phase in phases],
    }


def over_norms(d: int, n_runs: int) -> dict:
    """Of how many teachers SGD finds the function, over their norms: the loss falls to the square of a hundredth."""
    found = {}
    for method in (SGD, PLAIN_SGD, WIDE_SGD):
        found[method] = []
        for norm in NORMS:
            starts, teachers = drawn(method, d, n_runs, norm)
            trace = train_identity_mapping(starts, teachers, note_every=20, random_state=0, **options_of(method, d))[1]
            found[method].append(int((trace["loss"] <= FOUND**2 * trace["loss"][0]).any(axis=0).sum()))
    return {"d": d, "n_runs": n_runs, "norms": NORMS, "n_found": found}


def map_of_starts(d: int, norms: list[float], n_runs: int, n_steps: int) -> dict:
    """Share of runs that find the teacher's weights, or at least its function, over the norms of W and W*."""
    draws = [draw_weights(d, 1.0, n_runs=n_runs, random_state=which) for which in range(2)]
    sizes = np.array([(start, teacher) for start in norms for teacher in norms])
    starts, teachers = (
        (size[:, None, None, None] * draw).reshape(-1, d, d) for size, draw in zip(sizes.T, draws, strict=True)
    )
    _, trace = train_identity_mapping(starts, teachers, n_steps=n_steps, note_every=100, tol=1e-3)
    weights = trace["distance"][-1] <= FOUND * trace["distance"][0]
    function = trace["loss"][-1] <= FOUND**2 * trace["loss"][0]
    shape = (len(norms), len(norms), n_runs)
    return {
        "d": d,
        "n_runs": n_runs,
        "n_steps": n_steps,
        "norms": norms,
        "weights_found": weights.reshape(shape).mean(axis=2),
        "function_found": function.reshape(shape).mean(axis=2),
    }


def first_phase(d: int, n_runs: int) -> dict:
    """Distance and potential in small steps from a small start, of teachers whose neurons are much longer."""
    runs = []
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        W_star = 0.9 * np.linalg.qr(rng.standard_normal((d, d)))[0]
        start = draw_weights(d, 0.2, random_state=rng)
        _, trace = train_identity_mapping(start, W_star, learning_rate=0.2 / d, n_steps=300, note_every=3)
        phases = find_phases(trace)
        runs.append((trace, phases))
    trace = runs[0][0]
    return {
        "d": d,
        "n_runs": n_runs,
        "steps": trace.steps,
        "distance": trace["distance"] / trace["distance"][0],
        "potential": trace["potential"] / trace["potential"][0],
        "rises": [phases.rise for _, phases in runs],
        "phase_steps": [phases.step for _, phases in runs],
        "least_one_point_convexity": [trace["one_point_convexity"].min() for trace, _ in runs],
    }


def shrinkage(entry: dict) -> np.ndarray:
    """Fall of the squared distance in a step, of every run, over what its constant c promises, late in phase II.

    A step eta multiplies |W - W*|^2 with 1 - 2 eta c + (eta |grad L| / |W - W*|)^2. Where |grad L| <= beta |W - W*| and
    eta <= c / beta^2, that is at most 1 - eta c, and the ratio at least 1. Longer steps, as here, promise nothing, and
    noise adds to the last term. NaN where a run had no phase II, or one of three records.
    """
    rate, constant = (np.array(entry[name], dtype=float) for name in ("rate", "one_point_convexity"))
    return (1 - rate**2) / (entry["learning_rate"] * constant)


def targets(results: dict) -> list[dict]:
    """The rows of the summary."""
    of = {m: [entry for entry in results["success"] if entry["method"] == m] for m in METHODS}
    found = {
        method: ", ".join(f"{entry['n_found']} of {entry['n_runs']} at d = {entry['d']}" for entry in entries)
        for method, entries in of.items()
    }
    rows = [
        target(
            f"identity mapping: {method} finds the teacher",
            found[method],
            all(entry["n_found"] == entry["n_runs"] for entry in of[method]),
        )
        for method in (IDENTITY, SGD)
    ]
    for method, by in ((PLAIN, ""), (PLAIN_SGD, ", by SGD")):
        rows.append(target(f"the same starts without identity mapping{by}", f"{found[method]} find it", None))
    least = {method: np.min([shrinkage(entry).min() for entry in of[method]]) for method in (IDENTITY, SGD)}
    constants = {
        method: np.min([np.array(entry["one_point_convexity"], dtype=float).min() for entry in of[method]])
        for method in (IDENTITY, SGD)
    }
    rows += [
        target(
            "late in phase II of identity mapping, a step eta of gradient descent takes at least the share eta c off "
            "the squared distance, c the least constant of one-point convexity",
            f"{least[IDENTITY]:.2f} eta c or more; with SGD, which noise slows down, {least[SGD]:.2f} eta c",
            bool(least[IDENTITY] >= 1),
        ),
        target(
            "least constant of one-point convexity, late in phase II",
            f"{constants[IDENTITY]:.3f}; {constants[SGD]:.3f} with SGD",
            None,
        ),
    ]
    largest = results["first_phase"][-1]
    rows.append(
        target(
            "phase I of identity mapping: the distance rises while the potential falls",
            f"by {100 * (np.median(largest['rises']) - 1):.1f} % at d = {largest['d']}, median of {largest['n_runs']}",
            bool(min(largest["rises"]) > 1),
        )
    )
    for wide, method in ((WIDE_SGD, SGD), (WIDE, IDENTITY)):
        shares = {m: {entry["d"]: entry["n_found"] / entry["n_runs"] for entry in of[m]} for m in (wide, method)}
        rows.append(
            target(
                f"vanilla students of twice the width find the teacher's function less surely by {method} than those "
                "with identity mapping find its weights",
                found[wide],
                all(share < shares[method][d] for d, share in shares[wide].items()),
            )
        )
    over = results["over_norms"]
    kinds = zip(("with identity mapping", "without", "without, 2 d neurons"), over["n_found"].values(), strict=True)
    rows.append(
        target(
            f"d = {over['d']}: SGD finds the function of teachers of norm {', '.join(map(str, over['norms']))}",
            "; ".join(f"{kind} {', '.join(map(str, found))} of {over['n_runs']}" for kind, found in kinds),
            None,
        )
    )
    return rows


STYLES = {IDENTITY: "C0o-", SGD: "C2s--", PLAIN: "C3v-", PLAIN_SGD: "C1^--", WIDE: "C4D-", WIDE_SGD: "C5x--"}


def draw(results: dict, path: Path) -> None:
    """Success over d, and over the norm of teachers; the map of starts; the first phase."""
    plt = pyplot()
    figure, ((left, norms), (middle, right)) = plt.subplots(2, 2, figsize=(13, 10), layout="constrained")
    for method in METHODS:
        entries = [entry for entry in results["success"] if entry["method"] == method]
        share = [100 * entry["n_found"] / entry["n_runs"] for entry in entries]
        left.plot([entry["d"] for entry in entries], share, STYLES[method], label=method)
    dimensions = sorted({entry["d"] for entry in results["success"]})
    left.set(title="runs that find the teacher", xlabel="d", ylabel="per cent", xscale="log", ylim=(-5, 105))
    left.set_xticks(dimensions, dimensions)
    left.xaxis.set_minor_formatter("")
    left.legend(loc="center right", fontsize="small")

    over = results["over_norms"]
    for method, found in over["n_found"].items():
        norms.plot(over["norms"], 100 * np.array(found) / over["n_runs"], STYLES[method], label=method)
    norms.set(title=f"runs that find the teacher's function, d = {over['d']}", xlabel="|W*|", ylabel="per cent")
    norms.set_ylim(-5, 105)
    norms.legend(fontsize="small")

    starts = results["map"]
    image = middle.imshow(100 * np.array(starts["weights_found"]), origin="lower", cmap="viridis", vmin=0, vmax=100)
    ticks = range(len(starts["norms"]))
    for row, shares in enumerate(starts["weights_found"]):
        for column, share in enumerate(shares):
            color = "black" if share > 0.5 else "white"
            middle.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=8)
    middle.set_xticks(ticks, starts["norms"])
    middle.set_yticks(ticks, starts["norms"])
    middle.grid(visible=False)
    middle.set(title=f"from where, at d = {starts['d']} (per cent)", xlabel="|W*|", ylabel="|W| at the start")
    figure.colorbar(image, ax=middle, shrink=0.8)

    colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(results["first_phase"])))
    for entry, color in zip(results["first_phase"], colors, strict=True):
        right.plot(entry["steps"], entry["distance"], color=color, label=f"d = {entry['d']}")
    right.axhline(1, color="0.5", linewidth=0.8)
    right.set(title="|W - W*| / its start, long teachers: phase I", xlabel="step of size 0.2 / d", ylim=(0.85, None))
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    caption(
        figure,
        f"Top left: spectral norms of W and W* {SPECTRAL_NORM}; 100 runs, without identity 20 at d = 50 and 5 at "
        "d = 100; found means that |W - W*|, or of 2 d neurons the square root of the loss, fell to a hundredth within "
        f"{N_STEPS} d steps. Top right: {over['n_runs']} runs a point; found means that the square root of the loss "
        f"fell to a hundredth. Bottom left: {starts['n_runs']} runs each, gradient descent, {starts['n_steps']} steps. "
        "Bottom right: W* is 0.9 times an orthogonal matrix, |W| = 0.2, seed 0. "
        f"{results['environment']['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def measure(quick: bool) -> dict:
    """All parts."""
    success = []
    for d in (5, 10) if quick else (10, 20, 50, 100):
        for method in METHODS:
            if d > LARGEST.get(method, d):
                continue
            n_runs = 100 if method in (IDENTITY, SGD) else FEWER.get(d, 100)
            entry = train_all(method, d, 5 if quick else n_runs)
            success.append(entry)
            print(f"d = {d}, {method}: {entry['n_found']} of {entry['n_runs']}", flush=True)
    norms = [0.5, 2.0] if quick else [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
    starts = map_of_starts(5 if quick else 20, norms, 2 if quick else 10, 200 if quick else 1500)
    phases = [first_phase(d, 2 if quick else 5) for d in ((10, 20) if quick else (10, 20, 50, 100, 200))]
    over = over_norms(*(5, 2) if quick else (20, 50))
    return {"success": success, "over_norms": over, "map": starts, "first_phase": phases}


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments("identity_mapping", __doc__)
    with threads(1):
        seconds, measured = timed(lambda: measure(args.quick))
    results = {"environment": environment(), "quick": args.quick, "seconds": seconds} | measured
    results["targets"] = targets(results)
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
