"""What the fits of tabular.py say: means over splits, ranks, the rows of the table, and the picture."""

from pathlib import Path
from statistics import mean

import numpy as np
from scipy.stats import rankdata

from benchmarks.harness import caption, median_of, pyplot, target
from benchmarks.tabular_data import CLASSIFICATION, FOLDS, NAMES, REGRESSION, SPLITS
from benchmarks.tabular_models import AFTER_RELU, MODELS, OURS, SKLEARN

KINDS = {False: "regression", True: "classification"}
ALL_SETS = {False: REGRESSION, True: CLASSIFICATION}
CLOSE = {False: 1.05, True: 1.0}  # times the best RMSE; points of accuracy below the best
WORST_DRAWN = {False: 2.0, True: 8.0}
SHARE_CLOSE = {False: 12 / 15, True: 9 / 13}
PLACES = {False: 1, True: 2}
MLP_FITS, SECONDS = 10, 3.0  # a default fit may take the longer of both
MARKERS = "osD^vPXd<"  # beside colours
COLOURS = ("black", *(f"C{number}" for number in range(1, 9)), "saddlebrown", "crimson")  # eight of them of the style
LABELS = {OURS: "convexbn", AFTER_RELU: "BN after ReLU", "linear": "ridge / logistic", "SVM": "SVR / SVC"}


def results_of(runs: dict[str, dict]) -> dict[str, dict]:
    """Per stage and set what each model reached on the splits that ours was fitted on (all, where it was on none)."""
    fits: dict = {"defaults": {}, "tuned": {}}
    for key, fit in runs.items():
        stage, name, model, split = key.split("/")
        fits[stage].setdefault(name, {}).setdefault(model, {})[int(split)] = fit
    return {stage: {name: _set(name, sets[name]) for name in NAMES if name in sets} for stage, sets in fits.items()}


def _set(name: str, models: dict[str, dict[int, dict]]) -> dict:
    splits = sorted(models.get(OURS) or set().union(*models.values()))
    shape = next((fit for by_split in models.values() for fit in by_split.values() if "n" in fit), {})
    return {
        "classification": name in CLASSIFICATION,
        "n": shape.get("n"),
        "d": shape.get("d"),
        "splits": splits,
        "models": {model: _model(models[model], splits) for model in MODELS if model in models},
    }


def _model(by_split: dict[int, dict], splits: list[int]) -> dict:
    """Mean score and median times; without a score where a split is missing or failed."""
    fits = [by_split.get(split, {"error": "not fitted"}) for split in splits]
    errors = sorted({fit["error"] for fit in fits if "error" in fit})
    if errors:
        return {"score": None, "errors": errors}
    return {
        "score": mean(fit["score"] for fit in fits),
        "scores": [fit["score"] for fit in fits],
        "fit_seconds": median_of([fit["fit_cpu_seconds"] for fit in fits]),  # one thread; others may run beside
        "predict_seconds": median_of([fit["predict_seconds"] for fit in fits]),
        "fits_with_warnings": sum(bool(fit["warnings"]) for fit in fits),
    }


def scores(entry: dict) -> dict[str, float]:
    """Score of each model that has one."""
    return {name: model["score"] for name, model in entry["models"].items() if model["score"] is not None}


def behind(entry: dict, model: str) -> float | None:
    """RMSE over the least of scikit-learn's models, or points of accuracy below the best; None without a score."""
    known = scores(entry)
    rivals = [known[name] for name in SKLEARN if name in known]
    if model not in known or not rivals:
        return None
    return 100 * (max(rivals) - known[model]) if entry["classification"] else known[model] / min(rivals)


def of_kind(stage: dict, classification: bool) -> dict:
    """The sets of regression or of classification."""
    return {name: entry for name, entry in stage.items() if entry["classification"] == classification}


def with_ours(sets: dict) -> dict:
    """The sets on which ours was fitted, on which alone ranks are compared; all, where it was on none."""
    return {name: entry for name, entry in sets.items() if OURS in entry["models"]} or sets


def average_ranks(sets: dict) -> dict[str, tuple[float, int]]:
    """Mean rank of each model over the sets where it has a score, and how many these are; the best model first."""
    found: dict[str, list[float]] = {}
    for entry in sets.values():
        known = {model: score for model, score in scores(entry).items() if model != AFTER_RELU}
        order = rankdata([round(-score if entry["classification"] else score, 9) for score in known.values()])
        for model, rank in zip(known, order, strict=True):
            found.setdefault(model, []).append(float(rank))
    return dict(sorted(((model, (mean(places), len(places))) for model, places in found.items()), key=lambda x: x[1]))


def measured_in_full(sets: dict, classification: bool) -> bool:
    """Whether all sets are there, with all splits, and ours was fitted on all of them."""
    return set(sets) == set(ALL_SETS[classification]) and all(
        OURS in entry["models"] and len(entry["splits"]) == (FOLDS if classification else SPLITS)
        for entry in sets.values()
    )


def targets(results: dict) -> list[dict]:
    """The rows of the summary; not judged before everything has been measured."""
    defaults = with_ours(results["defaults"])
    rows = []
    for classification in KINDS:
        sets = of_kind(defaults, classification)
        judge = measured_in_full(sets, classification)
        rows += [row | {"met": row["met"] if judge else None} for row in _rows(sets, classification) if sets]
        rows += _placement_rows(sets, classification)
    judge = all(measured_in_full(of_kind(defaults, classification), classification) for classification in KINDS)
    rows += [row | {"met": row["met"] if judge else None} for row in _time_rows(defaults)]
    for classification, kind in KINDS.items():
        sets = of_kind(with_ours(results["tuned"]), classification)
        if sets:
            rows.append(target(f"{kind}, all tuned ({len(sets)} small sets): average rank", _ranks_text(sets), None))
    return rows


def _rows(sets: dict, classification: bool) -> list[dict]:
    kind = KINDS[classification]
    distances = {name: behind(entry, OURS) for name, entry in sets.items()}
    close = [name for name, value in distances.items() if value is not None and value <= CLOSE[classification]]
    rest = {name: value for name, value in distances.items() if name not in close}
    unit = "{:.2f} points" if classification else "{:.3f} times"
    others = ", ".join(
        f"{name} {unit.format(value) if value is not None else 'no score'}" for name, value in rest.items()
    )
    within = "one point" if classification else "5 %"
    rivals = "boosting, MLP, logistic regression and SVC" if classification else "boosting, MLP, ridge and SVR"
    order = list(average_ranks(sets))
    everywhere = len(distances) > 0 and None not in distances.values()
    rows = [
        target(
            f"{kind}, all by default: within {within} of the best of {rivals}",
            f"{len(close)} of {len(sets)} sets" + (f"; not {others}" if others else ""),
            len(close) >= SHARE_CLOSE[classification] * len(sets),
        ),
        target(
            f"{kind}, all by default: average rank first{' or second' if classification else ''}",
            _ranks_text(sets),
            everywhere and order.index(OURS) < PLACES[classification],
        ),
    ]
    if not classification:
        ratios = {
            name: scores(entry)[OURS] / scores(entry)["linear"]
            for name, entry in sets.items()
            if {OURS, "linear"} <= scores(entry).keys()
        }
        worst = max(ratios, key=ratios.__getitem__, default=None)
        rows.append(
            target(
                "regression, all by default: never worse than ridge by 2 %",
                f"at most {ratios[worst]:.3f} times its error ({worst})" if worst else "not measured",
                everywhere and worst is not None and ratios[worst] <= 1.02,
            )
        )
    return rows


def _placement_rows(sets: dict, classification: bool) -> list[dict]:
    """Batch normalization after the ReLU beside that before it, both by default."""
    pairs = [
        (known[AFTER_RELU], known[OURS]) for known in map(scores, sets.values()) if {AFTER_RELU, OURS} <= known.keys()
    ]
    if not pairs:
        return []
    better = sum((after > before) == classification and after != before for after, before in pairs)
    typical = np.median([100 * (after - before) if classification else after / before for after, before in pairs])
    unit = f"{typical:+.2f} points of accuracy" if classification else f"{typical:.3f} times the error"
    statement = f"{KINDS[classification]}, all by default: batch normalization after the ReLU, beside before it"
    return [target(statement, f"better on {better} of {len(pairs)} sets, in the median {unit}", None)]


def _time_rows(defaults: dict) -> list[dict]:
    times = {
        name: (models[OURS]["fit_seconds"], models["MLP"]["fit_seconds"])
        for name, models in ((name, entry["models"]) for name, entry in defaults.items())
        if all(models.get(model, {}).get("score") is not None for model in (OURS, "MLP"))
    }
    late = {name: time for name, time in times.items() if time[0] > max(MLP_FITS * time[1], SECONDS)}
    longest = max(times, key=lambda name: times[name][0], default=None)
    figure = f"{len(times) - len(late)} of {len(defaults)} sets"
    if late:
        figure += "; not " + ", ".join(
            f"{name} {ours:.3g} s, {ours / mlp:.3g} fits" for name, (ours, mlp) in late.items()
        )
    if longest:
        figure += f"; the longest {times[longest][0]:.3g} s ({longest}, MLP {times[longest][1]:.3g} s)"
    rows = [
        target(
            f"a default fit takes at most {MLP_FITS} default fits of the MLP, or {SECONDS:g} s (CPU)", figure,
            len(times) == len(defaults) and not late,
        )
    ]  # fmt: skip
    if "digits" in times:
        accuracy, (ours, mlp) = scores(defaults["digits"]), times["digits"]
        rows.append(
            target(
                "digits, ten classes, by default: accuracy of the MLP or better in the time of 15 of its fits",
                f"{accuracy[OURS]:.4f} (MLP {accuracy['MLP']:.4f}) in {ours / mlp:.3g} fits, {ours:.3g} s",
                accuracy[OURS] >= accuracy["MLP"] and ours <= 15 * mlp,
            )
        )
    return rows


def _ranks_text(sets: dict) -> str:
    return ", ".join(
        f"{LABELS.get(model, model)} {rank:.2f}" + (f" ({count} of {len(sets)} sets)" if count < len(sets) else "")
        for model, (rank, count) in average_ranks(sets).items()
    )


def text_table(results: dict) -> str:
    """For the terminal: per set the score and the fit time of every model."""
    lines = []
    for stage, sets in ((stage, results[stage]) for stage in ("defaults", "tuned") if results[stage]):
        lines.append(f"{stage:20}" + "".join(f"{LABELS.get(model, model):>18}" for model in MODELS))
        for name, entry in sets.items():
            cells = []
            for model in MODELS:
                known = entry["models"].get(model, {"score": None, "errors": [""]})
                cells.append(
                    (known["errors"][0][:14] if known["score"] is None else f"{known['score']:.4f}")
                    + (f" {known['fit_seconds']:.2g} s" if known["score"] is not None else "")
                )
            lines.append(f"{name:20}" + "".join(f"{cell:>18}" for cell in cells))
        for key, kind in KINDS.items():
            compared = with_ours(of_kind(sets, key))
            lines.append(f"average rank on {len(compared)} sets, {kind}: {_ranks_text(compared)}")
    return "\n".join(lines)


def draw(results: dict, path: Path) -> None:
    """Above, per set, how far each model is from the best of scikit-learn's; below the average ranks of all.

    A kind of which none of scikit-learn's was fitted is left out, and without any kind there is no picture.
    """
    kinds = [key for key in KINDS if _distances(of_kind(results["defaults"], key))]
    if not kinds:
        print("No picture: there is no model of scikit-learn's to compare with")
        return
    plt = pyplot()
    figure, axes = plt.subplots(
        2, len(kinds), figsize=(7.2 * len(kinds), 9.5), layout="constrained", squeeze=False, height_ratios=[2, 1]
    )
    colours = dict(zip(MODELS, COLOURS, strict=True))
    for column, kind in enumerate(kinds):
        sets = of_kind(results["defaults"], kind)
        _draw_sets(axes[0, column], sets, kind, colours)
        _draw_ranks(axes[1, column], with_ours(sets), colours)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9, frameon=False)
    machine = results["environment"]
    caption(
        figure,
        f"Everything by default, one thread each; means of {SPLITS} splits (regression) or {FOLDS} folds. At 1 or 0 is "
        "the best of boosting, MLP, ridge or logistic regression and SVM; the grey band is what counts as close to it; "
        f"an arrow stands for a point further to the right. {machine['cpu']}, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def _distances(sets: dict) -> list[float]:
    """Of all models on all sets from the best of scikit-learn's, where both have a score."""
    found = (behind(entry, model) for entry in sets.values() for model in MODELS)
    return [distance for distance in found if distance is not None]


def _draw_sets(ax, sets: dict, classification: bool, colours: dict) -> None:
    best, furthest = (0.0, WORST_DRAWN[True]) if classification else (1.0, WORST_DRAWN[False])
    ax.axvspan(best, CLOSE[classification], color="0.9", zorder=0)
    ax.axvline(best, color="0.5", linewidth=1)
    for model in reversed(MODELS):  # ours is drawn last, above the others
        points = [(behind(entry, model), height) for height, entry in enumerate(reversed(sets.values()))]
        points = [(distance, height) for distance, height in points if distance is not None]
        for far in (False, True):
            drawn = [(min(distance, furthest), height) for distance, height in points if (distance > furthest) == far]
            if drawn or (points and not far):
                ax.plot(
                    *np.array(drawn or [(np.nan, np.nan)]).T,
                    ">" if far else MARKERS[MODELS.index(model) % len(MARKERS)],
                    color=colours[model],
                    markersize=9 if model == OURS else 6,
                    alpha=1.0 if model == OURS else 0.75,
                    label=None if far else LABELS.get(model, model),
                )
    names = [name if entry["n"] is None else f"{name} ({entry['n']:,} x {entry['d']})" for name, entry in sets.items()]
    ax.set_yticks(range(len(sets)), reversed(names))
    if not classification:
        ax.set_xscale("log")
        ticks = [0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlim(0.95 * min(0.95, *_distances(sets)), 1.05 * furthest)
    label = "points of accuracy below the best" if classification else "RMSE over that of the best"
    ax.set(title=KINDS[classification], xlabel=label, ylim=(-0.6, len(sets) - 0.4))


def _draw_ranks(ax, sets: dict, colours: dict) -> None:
    ax.set_axisbelow(True)
    ranks = average_ranks(sets)
    for height, (model, (rank, count)) in enumerate(reversed(ranks.items())):
        ax.barh(height, rank, color=colours[model], alpha=1.0 if model == OURS else 0.75)
        few = f" (on {count} of {len(sets)} sets)" if count < len(sets) else ""
        ax.annotate(f" {rank:.2f}{few}", (rank, height), va="center", fontsize=9)
    ax.set_yticks(range(len(ranks)), [LABELS.get(model, model) for model in reversed(ranks)])
    ax.set(xlabel=f"average rank over {len(sets)} sets", xlim=(0, 1.15 * max(rank for rank, _ in ranks.values())))
