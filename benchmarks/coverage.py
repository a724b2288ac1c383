"""How often the lower bound of the predicted Dice holds, over many random splits.

python benchmarks/coverage.py CASES_CSV ... [--splits 2000]

Every table's cases with a Dice, and a simulated cohort of 131 cases, are split again
and again in the paper's proportion (63/13/55): the map is fitted to the first part,
calibrated on the second, and the share of the third whose Dice is at least the bound is
counted. Prints a Markdown table; "exact" is what the theory gives for the second part's
size, k / (n + 1), and "cross" calibrates on the first two parts together.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.data.split import make_split
from unc_jax.review import quality
from unc_jax.study import cases_table
from unc_jax.study.cases_table import EVALUATION_COLUMNS
from unc_jax.uncertainty.measures import PAPER_MEASURES

_LEVELS = (0.8, 0.9)
_MEASURES = ("dice", *PAPER_MEASURES)


def simulated(cases: int) -> list[dict]:
    """Dice falls with a hidden difficulty that the measures show with noise."""
    rng = np.random.default_rng(0)
    hard = rng.beta(1.2, 5, cases)
    noise = rng.normal(0, 0.06, (3, cases))
    return [
        {
            "dice": float(np.clip(0.96 - 0.6 * h + e, 0, 1)),
            "d_pw": 0.97 - 0.4 * h + a,
            "cv": float(np.exp(4 + 3 * h + 10 * b)),
            "u_labelled": 0.04 + 0.1 * h + abs(c) / 5,
        }
        for h, e, a, b, c in zip(hard, rng.normal(0, 0.03, cases), *noise, strict=True)
    ]


def coverage(rows: list[dict], method: str, splits: int) -> dict[float, list[float]]:
    """Share of the third part above its bound, mean bound, by level."""
    names = [str(number) for number in range(len(rows))]
    hits: dict[float, list[tuple[bool, float]]] = {level: [] for level in _LEVELS}
    for seed in range(splits):
        split = make_split(names, seed)
        fitted = quality.fit(
            [
                {**rows[int(case)], "split": part}
                for part in ("train", "validation")
                for case in getattr(split, part)
            ],
            method=method,
        )
        for case in split.test:
            row = rows[int(case)]
            for level in _LEVELS:
                low = quality.predict(fitted, row, level).lower
                if not math.isnan(low):
                    hits[level].append((row["dice"] >= low, low))
    return {
        level: np.mean(found, axis=0).tolist() if found else []
        for level, found in hits.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="*")
    parser.add_argument("--splits", type=int, default=2000)
    arguments = parser.parse_args()
    cohorts = {"simulated": simulated(131)}
    for path in arguments.tables:
        rows = [
            {name: row[name] for name in _MEASURES}
            for row in cases_table.read_rows(path, EVALUATION_COLUMNS)
            if all(row[name] is not None for name in _MEASURES)
        ]
        cohorts[str(path)] = rows
    print("| cases | calibrated on | method | level | exact | coverage | mean bound |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in cohorts.items():
        sizes = make_split([str(number) for number in range(len(rows))], 0)
        for method in ("split", "cross"):
            n = len(sizes.validation) + (method == "cross") * len(sizes.train)
            splits = arguments.splits if method == "split" else arguments.splits // 10
            for level, found in coverage(rows, method, splits).items():
                exact = math.ceil((n + 1) * level - 1e-9) / (n + 1)
                shown = [f"{value:.3f}" for value in found] or ["none", "none"]
                law = f"{exact:.3f}" if method == "split" and found else "-"
                print(
                    f"| {name} ({len(rows)}) | {n} | {method} | {level} | {law} "
                    f"| {' | '.join(shown)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
