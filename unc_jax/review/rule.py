"""Rule for the cases that a human should review, and for those to release."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from unc_jax.errors import InputError, counted
from unc_jax.review import quality, selection
from unc_jax.review.quality import Quality
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row

Models = Mapping[str, Quality]  # by structure; "" where there is but one


class Rule(NamedTuple):
    """Rule of the flags: a case is flagged that one of them applies to.

    Attributes:
      target_dice: cases whose lower bound lies below; None: no such rule.
      review_fraction: that share of the cases, the worst ones; None: no such rule.
      level: of the lower bound.
      release_level: cases that are not released, in place of those by lower bound; the
        greatest expected share of cases below the target among the released ones.
    """

    target_dice: float | None = None
    review_fraction: float | None = None
    level: float = 0.9
    release_level: float | None = None


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
    if rule.release_level is not None:
        if not 0 < rule.release_level < 1:
            raise InputError(
                f"--release-level is {rule.release_level}, must lie in (0, 1)"
            )
        if rule.target_dice is None:
            raise InputError(
                "--release-level needs --target-dice, below which a case is bad"
            )


def describe(rule: Rule) -> str:
    """Returns the rule in words, one sentence."""
    parts = [
        "every case that failed, came out empty, has one sample or is unlike the "
        "training cases"
    ]
    if rule.release_level is not None:
        parts.append(
            "every case that is not released (of the released ones, at most "
            f"{100 * rule.release_level:g} % are expected to have a Dice below "
            f"{rule.target_dice:g})"
        )
    elif rule.target_dice is not None:
        parts.append(
            f"cases whose lower bound of Dice (level {rule.level:.3g}) is below "
            f"{rule.target_dice:g}"
        )
    if rule.review_fraction is not None:
        parts.append(_worst_words(rule))
    return f"To review: {'; '.join(parts)}."


def decide(rows: Sequence[Row], rule: Rule, models: Models) -> list[Row]:
    """Returns the rows with `flag`, `reason` and `released` set, in their order.

    Always flagged: cases that failed or have no segmentation, cases unlike the training
    cases, and, under a target, cases without a lower bound. The fraction is of all
    rows, see `worst`; cases are released structure by structure.
    """
    chosen = worst(rows, rule.review_fraction or 0, models)
    released = _released(rows, rule, models)
    decided = []
    for index, row in enumerate(rows):
        found = reasons(row, rule)
        if cases_table.is_usable(row):
            if rule.release_level is not None and index not in released:
                found.append(f"not released at level {rule.release_level:g}")
            if index in chosen:
                found.append(_worst_words(rule).removeprefix("the "))
        words = "yes" if index in released else "no"
        decided.append(
            {
                **row,
                "flag": "yes" if found else "no",
                "reason": "; ".join(found),
                "released": "" if rule.release_level is None else words,
            }
        )
    return decided


def worst(rows: Sequence[Row], fraction: float, models: Models) -> set[int]:
    """Returns the indices of the worst ceil(fraction x rows), never more or fewer.

    First those that failed or have no segmentation, then those unlike the training
    cases, then by predicted Dice. That is a step function: within a step the score
    decides, then D_pw, which stands for both without a model, then the name.
    """

    def rank(index: int) -> tuple:
        """Returns the place of a row, the worst first."""
        row = rows[index]
        if not cases_table.is_usable(row):
            return 0, str(row["case"])
        model = models.get(str(row["structure"]))
        known = quality.score(model.map, row) if model else None
        numbers = [row["predicted_dice"], known, row["d_pw"]]
        numbers = [-1.0 if one is None else float(one) for one in numbers]
        names = str(row["case"]), str(row["structure"])
        return 1 + (not row["unlike"]), *numbers, *names

    count = math.ceil(fraction * len(rows) - 1e-9)
    return set(sorted(range(len(rows)), key=rank)[:count])


def release_words(rule: Rule, models: Models, rows: Sequence[Row]) -> str:
    """Returns how many cases are released, and why none can be; "" without the rule."""
    if rule.release_level is None:
        return ""
    n = max([len(model.scores) for model in models.values()], default=0)
    fewest = selection.fewest_calibration_cases(rule.release_level)
    if n < fewest:
        return (
            f"none released: {n} calibration cases; level {rule.release_level:g} takes "
            f"{fewest} or more"
        )
    count = sum(row["released"] == "yes" for row in rows)
    return f"{count} of {counted(len(rows), 'case')} released, by {n} calibration cases"


def one_sample_words(rows: Sequence[Row]) -> str:
    """Returns what is missing of cases of one sample; "" without any."""
    cases = {row["case"] for row in rows if row["n_samples"] == 1}
    words = f"{counted(len(cases), 'case')} of one sample: no spread, so no measure, no"
    return f"{words} predicted Dice, and a flag" if cases else ""


def reasons(row: Row, rule: Rule) -> list[str]:
    """Returns why a row is flagged by itself; [] when it is not."""
    status = str(row["status"])
    if status == cases_table.NO_LIVER:
        return ["no liver found"]
    if status == cases_table.EMPTY:
        return ["empty segmentation"]
    if status == cases_table.ONE_SAMPLE:
        return ["one sample has no spread"]
    if status != cases_table.OK:
        return ["failed"]
    found = []
    if row["unlike"] == cases_table.LEAKED:
        found.append("leaked: networks of its samples were trained on it")
    elif row["unlike"]:
        found.append(f"unlike the training cases: {row['unlike']}")
    if rule.target_dice is not None and rule.release_level is None:
        low = row["dice_lower"]
        if low is None:
            found.append(f"no lower bound at level {rule.level:.3g}")
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


def _released(rows: Sequence[Row], rule: Rule, models: Models) -> set[int]:
    """Returns the indices of the released cases.

    Cases that failed or are unlike the training cases count, and are never released.
    """
    if rule.release_level is None or rule.target_dice is None:
        return set()
    released = set()
    for structure, model in models.items():
        places = [i for i, row in enumerate(rows) if row["structure"] == structure]
        scores = [
            quality.score(model.map, rows[i])
            if not reasons(rows[i], rule)
            else math.nan
            for i in places
        ]
        bad = [dice < rule.target_dice for dice in model.dice]
        found = selection.release(scores, model.scores, bad, rule.release_level)
        released |= {i for i, one in zip(places, found, strict=True) if one}
    return released


def _worst_words(rule: Rule) -> str:
    return f"the worst {100 * (rule.review_fraction or 0):g} %"
