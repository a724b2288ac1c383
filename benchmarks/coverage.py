"""Coverage of the lower bound of the predicted Dice, and what could spoil it.

python benchmarks/coverage.py [RUN/cases.csv ...] [--repetitions 4000]

Without tables those of results/*/runs. Prints Markdown. Exits with 1 when a coverage
lies below its exact tolerance (of all rows together, 1 run in 100 does by chance), or
when the check does not see what it must: bounds that training cases calibrate.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.review import dice_map, quality, selection
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.uncertainty.measures import PAPER_MEASURES

ROOT = Path(__file__).parents[1]
_LEVELS = (0.8, 0.9)
_FEWEST = 3  # cases to fit a map to, or to calibrate it with
_MEASURES = ("dice", *PAPER_MEASURES)
_CHANCE = 0.01  # that any row of a sound method is found too low


class Count(NamedTuple):
    """Covered cases of a row of the table, and the law that they should follow."""

    covered: int
    cases: int
    exact: float
    law: Callable[[int], float]  # P(at most that many covered)

    def is_low(self, rows: int) -> bool:
        return self.law(self.covered) < _CHANCE / rows

    def cells(self) -> str:
        share = f"{self.covered / self.cases:.3f}"
        return (
            f"{self.exact:.3f} | {share} | {self.cases} | {self.law(self.covered):.3f}"
        )


def order_statistic(n: int, level: float) -> int:
    """Returns the place of the residual that the bound takes, of n."""
    return math.ceil((n + 1) * level - 1e-9)


def of_one_split(model: quality.Quality, test: Sequence[dict], level: float) -> Count:
    """Counts test cases above their bound, all with the same calibration cases.

    Given those, the coverage is Beta(k, n + 1 - k) and the count beta-binomial.
    """
    n = len(model.residuals)
    k = order_statistic(n, level)
    lower = [quality.predict(model, row, level).lower for row in test]
    covered = sum(row["dice"] >= low for row, low in zip(test, lower, strict=True))
    law = stats.betabinom(len(test), k, n + 1 - k).cdf
    return Count(covered, len(test), k / (n + 1), law)


def of_repetitions(covered: Sequence[bool], n: int, level: float) -> Count:
    """Counts independent repetitions, each with calibration cases of its own."""
    exact = order_statistic(n, level) / (n + 1)
    law = stats.binom(len(covered), exact).cdf
    return Count(sum(covered), len(covered), exact, law)


def cohort(
    rng: np.random.Generator, sizes: Sequence[int], gap: float
) -> list[list[dict]]:
    """Draws training, validation and test cases; measures show a hidden difficulty.

    gap: added to the Dice of training cases, which the network saw.
    """
    parts = []
    for split, count in zip(("train", "validation", "test"), sizes, strict=True):
        hard = rng.beta(1.2, 5, count)
        a, b, c = rng.normal(0, 0.06, (3, count))
        dice = 0.94 - 0.6 * hard + rng.normal(0, 0.03, count)
        columns = {
            "dice": np.clip(dice + gap * (split == "train"), 0, 1),
            "d_pw": 0.97 - 0.4 * hard + a,
            "cv": np.exp(4 + 3 * hard + 10 * b),
            "u_labelled": 0.04 + 0.1 * hard + abs(c) / 5,
        }
        parts.append(
            [
                {name: float(values[i]) for name, values in columns.items()}
                | {"split": split}
                for i in range(count)
            ]
        )
    return parts


def best_of(
    pool: np.ndarray, n: int, own: float, checkpoints: int, level: float, times: int
) -> float:
    """Returns the coverage when the calibration cases chose the checkpoint.

    Args:
      pool: residuals of a run's validation and test cases, resampled without
        replacement into n for calibration and one new one.
      own: part of their spread that is drawn anew for every checkpoint. The one with
        the best mean of the n is taken.
    """
    rng = np.random.default_rng(0)
    own = min(own, pool.std())
    rest = math.sqrt(1 - (own / pool.std()) ** 2)
    shared = pool.mean() + (pool - pool.mean()) * rest
    drawn = rng.permuted(np.tile(shared, (times, 1)), axis=1)[:, : n + 1]
    noise = rng.normal(0, own, (times, checkpoints, n))
    chosen = noise[np.arange(times), noise.mean(axis=2).argmin(axis=1)]
    ordered = np.sort(drawn[:, :n] + chosen, axis=1)
    new = drawn[:, n] + rng.normal(0, own, times)
    return float(np.mean(new <= ordered[:, order_statistic(n, level) - 1]))


def validation_spread(run: Path) -> float:
    """Returns the standard deviation of the last three mean validation Dice.

    An upper bound of the noise between equally good checkpoints: it holds what
    training still gained.
    """
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line).get("validation_dice") for line in lines]
    return float(np.std([one for one in found if one is not None][-3:], ddof=1))


def repeated(
    repetitions: int, level: float, *, gap: float, cross: bool = False
) -> Count:
    """Counts, over cohorts, whether one new case lies above its bound.

    cross: training cases calibrate too, as they did once.
    """
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(repetitions):
        train, held_out, (new,) = cohort(rng, (63, 13, 1), gap)
        rows = [*train, *held_out]
        if cross:
            rows = [{**row, "split": ""} for row in rows]
        lower = quality.predict(quality.fit(rows), new, level).lower
        covered.append(bool(new["dice"] >= lower))
    return of_repetitions(covered, 13 + 63 * cross, level)


def released(repetitions: int, level: float, validation: int) -> tuple[float, ...]:
    """Returns mean share of bad cases (Dice < 0.8) among the released, its standard
    error, and the share released, over cohorts of 55 new cases."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(repetitions):
        train, held_out, new = cohort(rng, (63, validation, 55), 0.05)
        model = quality.fit([*train, *held_out])
        scores = [dice_map.score(model.map, row) for row in new]
        bad = np.array(model.dice) < 0.8
        chosen = selection.release(scores, model.scores, bad, level)
        wrong = chosen & np.array([row["dice"] < 0.8 for row in new])
        found.append((wrong.sum() / max(chosen.sum(), 1), chosen.mean()))
    shares = np.array(found)
    error = shares[:, 0].std() / math.sqrt(repetitions)
    return float(shares[:, 0].mean()), float(error), float(shares[:, 1].mean())


def read(path: Path) -> dict[str, list[dict]]:
    """Returns the rows with Dice and measures of a table, by split."""
    parts: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for row in cases_table.read_rows(path, EVALUATION_COLUMNS):
        if all(row[name] is not None for name in _MEASURES):
            parts[str(row["split"])].append(row)
    return parts


def errors_of_maps(parts: dict[str, list[dict]]) -> list[float]:
    """Returns mean errors on the test cases: bias of the map (predicted less true), and
    mean absolute errors of the map, of the map less its median validation residual, of
    a map of half of the validation cases, and of the validation cases' median."""
    train, held_out, test = parts.values()
    dice = np.array([row["dice"] for row in test])

    def off(rows: list[dict]) -> np.ndarray:
        fitted = dice_map.fit_map(rows)
        return np.array([dice_map.map_dice(fitted, row) for row in test]) - dice

    shift = np.median(quality.fit([*train, *held_out]).residuals)
    constant = np.median([row["dice"] for row in held_out])
    ours = off(train)
    others = (ours, ours - shift, off(held_out[::2]), constant - dice)
    return [float(ours.mean()), *(float(np.abs(one).mean()) for one in others)]


def head(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")


def print_choice(name: str, parts: dict, run: Path, times: int) -> None:
    if not (run / "metrics.jsonl").exists():
        return
    n = len(parts["validation"])
    model = quality.fit([*parts["train"], *parts["validation"], *parts["test"]])
    unseen = [*parts["validation"], *parts["test"]]
    pool = np.array([dice_map.map_dice(model.map, row) - row["dice"] for row in unseen])
    own = validation_spread(run) * math.sqrt(n)
    for level in _LEVELS:
        exact = order_statistic(n, level) / (n + 1)
        shown = [best_of(pool, n, own, k, level, times) for k in (1, 2, 10)]
        words = " | ".join(f"{one:.3f}" for one in shown)
        print(f"| {name} | {level} | {exact:.3f} | {words} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="*")
    parser.add_argument("--repetitions", type=int, default=4000)
    arguments = parser.parse_args()
    tables = arguments.tables or sorted(ROOT.glob("results/*/runs/*/cases.csv"))
    folders = {
        str(path.parent).removeprefix(f"{ROOT}/results/"): path.parent
        for path in tables
    }
    runs = {name: read(path / "cases.csv") for name, path in folders.items()}
    # Of some runs the rows of test cases alone are stored.
    runs = {
        name: parts
        for name, parts in runs.items()
        if min(len(parts["train"]), len(parts["validation"])) >= _FEWEST
    }
    times = arguments.repetitions
    # What the row is, and whether it must be found too low.
    rows: list[tuple[str, float, Count, bool]] = []
    for name, parts in runs.items():
        model = quality.fit([*parts["train"], *parts["validation"]])
        for level in _LEVELS:
            count = of_one_split(model, parts["test"], level)
            rows.append((f"{name} | {len(model.residuals)}", level, count, False))
    for level in _LEVELS:
        for gap in (0.0, 0.05):
            words = f"drawn, training Dice + {gap} | 13"
            rows.append((words, level, repeated(times, level, gap=gap), False))
        few = repeated(times // 4, level, gap=0.05, cross=True)
        words = "drawn, training Dice + 0.05, training cases calibrate too | 76"
        rows.append((words, level, few, True))
    head("cases", "calibrated on", "level", "exact", "coverage", "of", "P(no more)", "")
    wrong = 0
    for words, level, count, must_be_low in rows:
        low = count.is_low(len(rows))
        wrong += low != must_be_low
        said = "too low" + ", as it must" * must_be_low if low else ""
        print(f"| {words} | {level} | {count.cells()} | {said} |")
    head("calibration cases", "release level", "bad among released", "released")
    for n in (5, 13, 30):
        share, error, power = released(times // 4, 0.1, n)
        wrong += share > 0.1 + 3 * error
        print(f"| {n} | 0.1 | {share:.3f} +- {error:.3f} | {power:.2f} |")
    head("run", "level", "exact", "last checkpoint", "better of 2", "best of 10")
    for name, parts in runs.items():
        print_choice(name, parts, folders[name], times)
    head("run", "bias of map", "MAE map", "shifted", "of half validation", "constant")
    found = {name: errors_of_maps(parts) for name, parts in runs.items()}
    for name, numbers in {**found, "mean": np.mean([*found.values()], 0)}.items():
        print(f"| {name} | {' | '.join(f'{one:.4f}' for one in numbers)} |")
    print(f"\n{wrong} rows are not as they must be" if wrong else "\nall as it must be")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
