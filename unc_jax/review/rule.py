"""Rules that decide which cases a human should review and which are released."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from unc_jax.errors import InputError, counted
from unc_jax.review import dice_map, selection
from unc_jax.review.quality import LEVEL, Quality
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row

Models = Mapping[str, Quality]  # by structure; "" for a single, unnamed structure


class Rule(NamedTuple):
    """Criteria of the flags; a case is flagged when one of them applies.

    Attributes:
      target_dice: flag cases whose lower bound is below; None: no such criterion.
      review_fraction: flag this share of the cases, the worst; None: no such criterion.
      level: level of the lower bound.
      lowest_level: level of the structure with the fewest known cases; None: the level
        is the same for all structures.
      release_level: flag all cases that are not released, instead of those with a low
        bound; largest expected share of released cases with a Dice below target_dice.
        None: no case is released.
    """

    target_dice: float | None = None
    review_fraction: float | None = None
    level: float = LEVEL
    lowest_level: float | None = None
    release_level: float | None = None


def check(rule: Rule) -> None:
    """Raises InputError for values out of range, or a release_level without target."""
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
    """Returns the rule as a sentence."""
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
        low = rule.lowest_level
        levels = f"{low:.3g} to {rule.level:.3g}" if low else f"{rule.level:.3g}"
        parts.append(
            f"cases whose lower bound of Dice (level {levels}) is below "
            f"{rule.target_dice:g}"
        )
    if rule.review_fraction is not None:
        parts.append(_worst_words(rule))
    return f"To review: {'; '.join(parts)}."


def decide(rows: Sequence[Row], rule: Rule, models: Models) -> list[Row]:
    """Returns the rows, in their order, with `flag`, `reason` and `released` set.

    Always flagged are cases that failed or have no segmentation, cases unlike the
    training cases and, with a target, cases without a lower bound. The review fraction
    is a share of all rows (`worst`); cases are released separately per structure, and a
    flagged case is not.
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
        words = "yes" if index in released and not found else "no"
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
    """Returns the indices of exactly the worst ceil(fraction x rows) rows.

    Rows that failed or have no segmentation come first, then rows unlike the training
    cases, then the others by predicted Dice, or by D_pw, itself a Dice, where a
    structure has no model. Predicted Dice is a step function; ties are broken by the
    score, then D_pw, then the name.
    """

    def rank(index: int) -> tuple:
        """Returns the sort key of a row, the worst first."""
        row = rows[index]
        if not cases_table.is_usable(row):
            return 0, str(row["case"])
        model = models.get(str(row["structure"]))
        known = dice_map.score(model.map, row) if model else None
        predicted = row["predicted_dice"]
        first = row["d_pw"] if predicted is None else predicted
        numbers = [first, known, row["d_pw"]]
        numbers = [-1.0 if one is None else float(one) for one in numbers]
        names = str(row["case"]), str(row["structure"])
        return 1 + (not row["unlike"]), *numbers, *names

    count = math.ceil(fraction * len(rows) - 1e-9)
    return set(sorted(range(len(rows)), key=rank)[:count])


def release_words(rule: Rule, models: Models, rows: Sequence[Row]) -> str:
    """Returns a sentence on the number of released cases; "" without release_level."""
    if rule.release_level is None:
        return ""
    fewest = selection.fewest_calibration_cases(rule.release_level)
    sentences = []
    structures = dict.fromkeys(str(row["structure"]) for row in rows)
    if len(structures) > 1:
        structures.pop("", None)  # of failed cases
    for structure in structures:
        own = [row for row in rows if row["structure"] == structure]
        n = len(models[structure].scores) if structure in models else 0
        count = sum(row["released"] == "yes" for row in own)
        told = (
            f"{count} of {counted(len(own), 'case')} released, by {n} calibration cases"
        )
        if n < fewest:
            told = (
                f"none released: {n} calibration cases; level {rule.release_level:g} "
                f"needs {fewest} or more"
            )
        sentences.append(f"{structure}: {told}" if structure else told)
    return "; ".join(sentences)


def one_sample_words(rows: Sequence[Row]) -> str:
    """Returns a sentence on cases with a single sample; "" without any."""
    cases = {row["case"] for row in rows if row["n_samples"] == 1}
    words = f"{counted(len(cases), 'case')} with one sample: no spread, so no measure,"
    return f"{words} no predicted Dice, and a flag" if cases else ""


def reasons(row: Row, rule: Rule) -> list[str]:
    """Returns the reasons to flag a row that do not depend on other rows."""
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
    unlike = cases_table.unlike(row)
    if cases_table.LEAKED in unlike:
        found.append("leaked: a network of its samples was trained on it")
    if cases_table.IDENTICAL in unlike:
        found.append("samples of it are copies of others")
    apart = (cases_table.OTHER_COUNT, cases_table.NO_MEASURE)
    if named := [one for one in unlike if one in apart]:
        words = "cannot be compared with the calibration cases"
        found.append(f"{words}: {', '.join(named)}")
    said = (cases_table.LEAKED, cases_table.IDENTICAL, *apart)
    if others := [one for one in unlike if one not in said]:
        found.append(f"unlike the training cases: {', '.join(others)}")
    if rule.target_dice is not None and rule.release_level is None:
        low = row["dice_lower"]
        if low is None:
            found.append(f"no lower bound at level {rule.level:.3g}")
        elif float(low) < rule.target_dice:
            found.append(f"lower bound {float(low):.3f} < {rule.target_dice:g}")
    return found


def order(rows: list[Row]) -> list[Row]:
    """Sorts rows worst first: those without a segmentation, flagged ones, the rest.

    Within each group rows are sorted by lower bound, predicted Dice and D_pw. Rows
    without a value come before rows with one; ties keep their order.
    """

    def rank(row: Row) -> tuple:
        bounds = [row["dice_lower"], row["predicted_dice"], row["d_pw"]]
        known = [(b is not None, 0.0 if b is None else float(b)) for b in bounds]
        return cases_table.is_usable(row), row["flag"] != "yes", *known

    return sorted(rows, key=rank)


def _released(rows: Sequence[Row], rule: Rule, models: Models) -> set[int]:
    """Returns the indices of the released cases.

    Cases that failed or are unlike the training cases count as tested cases but are
    never released.
    """
    if rule.release_level is None or rule.target_dice is None:
        return set()
    released = set()
    for structure, model in models.items():
        places = [i for i, row in enumerate(rows) if row["structure"] == structure]
        scores = [
            dice_map.score(model.map, rows[i])
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
