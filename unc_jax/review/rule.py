"""Which cases a human should see, why, and what that would have saved."""

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row


class Rule(NamedTuple):
    """What is flagged; a case that matches either of the first two is.

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


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a rule, and --calibrate, which its bounds may come from."""
    parser.add_argument("--calibrate", type=Path, help="cases.csv with known Dice")
    parser.add_argument("--target-dice", type=float, help="review what may be below")
    parser.add_argument("--review-fraction", type=float, help="review the worst share")
    parser.add_argument("--level", type=float, default=0.9, help="%(default)s")


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
    """The rows with `flag` ("yes", "no") and `reason` set, in their order.

    Always flagged: cases that failed or have no segmentation, cases unlike the training
    cases, and, under a target, cases without a lower bound. The fraction is of all
    cases; those without a predicted Dice count as the worst, and ties at the edge are
    all flagged.
    """
    worst = _worst(rows, rule.review_fraction)
    decided = []
    for number, row in enumerate(rows):
        reasons = _reasons(row, rule)
        if number in worst and cases_table.is_usable(row):
            reasons.append(f"worst {100 * (rule.review_fraction or 0):.0f} %")
        flag = "yes" if reasons else "no"
        decided.append({**row, "flag": flag, "reason": "; ".join(reasons)})
    return decided


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
    """Predicted Dice at or below which `fraction` of the given cases lie.

    Chosen on validation cases, it is a rule for cases that come one at a time. -inf for
    a fraction of 0 and for no cases; NaN counts as the worst.
    """
    values = np.nan_to_num(np.asarray(predicted, float), nan=-1.0)
    count = math.ceil(fraction * len(values) - 1e-9)
    return float(np.sort(values)[count - 1]) if count else -math.inf


def appraise(dice: ArrayLike, flagged: ArrayLike, target_dice: float) -> dict[str, Any]:
    """What flagging would have done on cases with a known Dice (n,), flagged bool (n,).

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


def _reasons(row: Row, rule: Rule) -> list[str]:
    status = str(row["status"])
    if status == cases_table.NO_LIVER:
        return ["no liver found"]
    if status == cases_table.EMPTY:
        return ["empty segmentation"]
    if status != cases_table.OK:
        return ["failed"]
    reasons = []
    if row["unlike"]:
        reasons.append(f"unlike the training cases: {row['unlike']}")
    if rule.target_dice is not None:
        low = row["dice_lower"]
        if low is None:
            reasons.append(f"no lower bound at level {rule.level:g}")
        elif float(low) < rule.target_dice:
            reasons.append(f"lower bound {float(low):.3f} < {rule.target_dice:g}")
    return reasons


def _worst(rows: list[Row], fraction: float | None) -> set[int]:
    if not fraction:
        return set()
    found = (row["predicted_dice"] for row in rows)
    values = [-1.0 if value is None else float(value) for value in found]
    edge = threshold(values, fraction)
    return {number for number, value in enumerate(values) if value <= edge}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
