"""Rule for the cases that a human should review, and what it would have saved."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from numpy.typing import ArrayLike

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import quality
from unc_jax.review.quality import Quality
from unc_jax.study import cases_table
from unc_jax.study.cases_table import OK, Row

# Rules that review.json reports of.
_TARGET_DICE, _REVIEW_FRACTION, _LEVEL = 0.9, 0.1, 0.9


class Rule(NamedTuple):
    """Rule of the flags: a case is flagged that either of the first two applies to.

    Attributes:
      target_dice: cases whose lower bound lies below; None: no such rule.
      review_fraction: that share of the cases, those with the lowest predicted Dice;
        None: no such rule.
      level: of the lower bound.
    """

    target_dice: float | None = None
    review_fraction: float | None = None
    level: float = 0.9


def check(rule: Rule) -> None:
    """Raises InputError for numbers that make no sense."""
    if rule.target_dice is not None and not 0 < rule.target_dice <= 1:
        raise InputError(f"--target-dice is {rule.target_dice}, must lie in (0, 1]")
    if rule.review_fraction is not None and not 0 <= rule.review_fraction <= 1:
        raise InputError(
            f"--review-fraction is {rule.review_fraction}, must lie in [0, 1]"
        )
    if not 0 < rule.level < 1:
        raise InputError(f"--level is {rule.level}, must lie in (0, 1)")


def describe(rule: Rule) -> str:
    """Returns the rule in words, one sentence."""
    parts = ["every case that failed, came out empty or is unlike the training cases"]
    if rule.target_dice is not None:
        parts.append(
            f"cases whose lower bound of Dice (level {rule.level:g}) is below "
            f"{rule.target_dice:g}"
        )
    if rule.review_fraction is not None:
        parts.append(f"the worst {100 * rule.review_fraction:g} %")
    return f"To review: {'; '.join(parts)}."


def decide(rows: list[Row], rule: Rule) -> list[Row]:
    """Returns the rows with `flag` ("yes", "no") and `reason` set, in their order.

    Always flagged: cases that failed or have no segmentation, cases unlike the training
    cases, and, under a target, cases without a lower bound. The fraction is of all
    cases; those without a predicted Dice count as the worst, and ties at the edge are
    all flagged.
    """
    worst = _worst(rows, rule.review_fraction)
    decided = []
    for index, row in enumerate(rows):
        found = reasons(row, rule)
        if index in worst and cases_table.is_usable(row):
            found.append(f"worst {100 * (rule.review_fraction or 0):.0f} %")
        flag = "yes" if found else "no"
        decided.append({**row, "flag": flag, "reason": "; ".join(found)})
    return decided


def reasons(row: Row, rule: Rule) -> list[str]:
    """Returns why a row is flagged by itself; [] when it is not."""
    status = str(row["status"])
    if status == cases_table.NO_LIVER:
        return ["no liver found"]
    if status == cases_table.EMPTY:
        return ["empty segmentation"]
    if status != cases_table.OK:
        return ["failed"]
    found = []
    if row["unlike"]:
        found.append(f"unlike the training cases: {row['unlike']}")
    if rule.target_dice is not None:
        low = row["dice_lower"]
        if low is None:
            found.append(f"no lower bound at level {rule.level:g}")
        elif float(low) < rule.target_dice:
            found.append(f"lower bound {float(low):.3f} < {rule.target_dice:g}")
    return found


def order(rows: list[Row]) -> list[Row]:
    """Returns the rows worst first: without a segmentation, flagged, then the rest.

    Within each by lower bound, predicted Dice and D_pw. A row without a number comes
    before those with one; ties stay in their order.
    """

    def rank(row: Row) -> tuple:
        bounds = [row["dice_lower"], row["predicted_dice"], row["d_pw"]]
        known = [(b is not None, 0.0 if b is None else float(b)) for b in bounds]
        return cases_table.is_usable(row), row["flag"] != "yes", *known

    return sorted(rows, key=rank)


def threshold(predicted: ArrayLike, fraction: float) -> float:
    """Returns the predicted Dice at or below which `fraction` of the cases lie.

    Chosen on validation cases, it is a rule for cases that come one at a time. -inf for
    a fraction of 0 and for no cases; NaN counts as the worst.
    """
    values = np.nan_to_num(np.asarray(predicted, float), nan=-1.0)
    count = math.ceil(fraction * len(values) - 1e-9)
    return float(np.sort(values)[count - 1]) if count else -math.inf


def appraise(dice: ArrayLike, flagged: ArrayLike, target_dice: float) -> dict[str, Any]:
    """Appraises a review of the flagged cases by their known Dice, both (n,).

    Failures are cases with Dice below the target. `sensitivity`: share of the failures
    that were flagged, None without failures. `saved`: share of the cases nobody has to
    see. `dice_kept`: mean Dice of those, beside `dice_all`, and beside what a review of
    as many cases gives when they are drawn at random (the mean of all) or by an oracle
    (the worst ones). NaN Dice are left out; means of nothing are None.
    """
    dice, flagged = np.asarray(dice, float), np.asarray(flagged, bool)
    known = ~np.isnan(dice)
    dice, flagged = dice[known], flagged[known]
    failure = dice < target_dice
    kept = int((~flagged).sum())
    return {
        "n": len(dice),
        "target_dice": target_dice,
        "failures": int(failure.sum()),
        "sensitivity": _mean(flagged[failure]),
        "flagged": len(dice) - kept,
        "saved": _mean(~flagged),
        "dice_all": _mean(dice),
        "dice_kept": _mean(dice[~flagged]),
        "dice_kept_random": _mean(dice) if kept else None,
        "dice_kept_oracle": _mean(np.sort(dice)[len(dice) - kept :]),
    }


def store_quality(workdir: Path, rows: list[Row]) -> None:
    """Writes RUN/quality.json, a `Quality`, and RUN/review.json from a run's cases.csv.

    review.json says what a review by that map would have saved on the test cases.
    Without enough validation cases there are none of both; a warning says so.
    """
    held_out = sum(row["split"] == "validation" for row in rows)
    # Too few validation cases for the level: training cases help out, each predicted
    # by a map that does not know it.
    method = "split" if quality.greatest_level(held_out) >= _LEVEL else "cross"
    try:
        found = quality.fit(rows, method=method)
    except InputError as error:
        logging.warning("no predicted quality: %s", error)
        for name in ("quality.json", "review.json"):
            (workdir / name).unlink(missing_ok=True)
        return
    files.write_json(workdir / "quality.json", quality.to_json(found))
    files.write_json(workdir / "review.json", _appraisals(rows, found))


def _worst(rows: list[Row], fraction: float | None) -> set[int]:
    if not fraction:
        return set()
    found = (row["predicted_dice"] for row in rows)
    values = [-1.0 if value is None else float(value) for value in found]
    edge = threshold(values, fraction)
    return {index for index, value in enumerate(values) if value <= edge}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _appraisals(rows: list[Row], found: Quality) -> dict[str, Any]:
    """Returns the content of review.json: both rules on the test cases.

    The threshold of the fraction is of validation cases.
    """
    held_out = {name: _estimates(rows, name, found) for name in ("validation", "test")}
    predicted, lower, dice = held_out["test"]
    edge = threshold(held_out["validation"][0], _REVIEW_FRACTION)
    return {
        "level": _LEVEL,
        "method": found.method,
        "greatest_level": quality.greatest_level(len(found.residuals)),
        "target_dice": appraise(dice, ~(lower >= _TARGET_DICE), _TARGET_DICE),
        "review_fraction": {
            "fraction": _REVIEW_FRACTION,
            "threshold": edge if np.isfinite(edge) else None,
            **appraise(dice, predicted <= edge, _TARGET_DICE),
        },
    }


def _estimates(rows: list[Row], split: str, found: Quality) -> np.ndarray:
    """Returns predicted Dice, lower bound and true Dice of a split (3, cases)."""
    chosen = [row for row in rows if row["split"] == split and row["status"] == OK]
    estimates = [quality.predict(found, row, _LEVEL) for row in chosen]
    dice = cases_table.column(chosen, "dice")
    return np.array(
        [[one.predicted for one in estimates], [one.lower for one in estimates], dice]
    ).reshape(3, len(chosen))
