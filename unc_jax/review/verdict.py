"""Verdict on a run's quality map, from its test cases, which it was not fitted to.

The measures rank the cases when the 95 % interval of Spearman's rho of score and Dice
lies above 0. The predicted Dice is useful when its mean error is smaller than that of a
constant.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from absl import logging
from numpy.typing import ArrayLike

from unc_jax.data import files
from unc_jax.errors import InputError, counted
from unc_jax.review import dice_map, prediction_errors, quality, rule
from unc_jax.review.prediction_errors import failure_dice
from unc_jax.review.quality import LEVEL, Quality
from unc_jax.study import cases_table, statistics
from unc_jax.study.appraisal import FEWEST_FAILURES, resampled
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import OK, Row

# Share of the cases in the review that review.json reports.
_REVIEW_FRACTION = 0.1


def appraise(dice: ArrayLike, flagged: ArrayLike, target_dice: float) -> dict[str, Any]:
    """Appraises a review of the flagged cases by their known Dice, both (n,).

    Failures are cases with a Dice below the target. `sensitivity` is the share of the
    failures that were flagged, with its exact 95 % interval (Clopper & Pearson, 1934),
    or None without failures; `few_failures`: there are too few for a conclusion.
    `saved` is the share of cases that are not flagged and `dice_kept` their mean Dice.
    `dice_all` is the mean Dice of all cases; `dice_kept_random` and `dice_kept_oracle`
    are that of the kept cases if as many are flagged at random, or by an oracle (the
    worst). NaN Dice are left out; means without cases are None.
    """
    dice, flagged = np.asarray(dice, float), np.asarray(flagged, bool)
    known = ~np.isnan(dice)
    dice, flagged = dice[known], flagged[known]
    failure = dice < target_dice
    failures, kept = int(failure.sum()), int((~flagged).sum())
    found = int(flagged[failure].sum())
    return {
        "n": len(dice),
        "target_dice": target_dice,
        "failures": failures,
        "few_failures": failures < FEWEST_FAILURES,
        "sensitivity": statistics.mean(flagged[failure]),
        "sensitivity_ci95": clopper_pearson(found, failures),
        "flagged": len(dice) - kept,
        "saved": statistics.mean(~flagged),
        "dice_all": statistics.mean(dice),
        "dice_kept": statistics.mean(dice[~flagged]),
        "dice_kept_random": statistics.mean(dice) if kept else None,
        "dice_kept_oracle": statistics.mean(np.sort(dice)[len(dice) - kept :]),
    }


def worst_found(dice: ArrayLike, flagged: ArrayLike) -> dict[str, Any]:
    """Counts the flagged cases among the k worst cases, k being the number flagged.

    dice, flagged: (n,); cases with NaN Dice are left out. `worst`: k; `found`: flagged
    cases among the k lowest Dice (ties: the first); `found_by_chance`: k^2 / n, the
    mean of a random choice; `dice_flagged`: mean Dice of the flagged cases. Means
    without cases are None.
    """
    dice, flagged = np.asarray(dice, float), np.asarray(flagged, bool)
    known = ~np.isnan(dice)
    dice, flagged = dice[known], flagged[known]
    count = int(flagged.sum())
    lowest = np.argsort(dice, kind="stable")[:count]
    return {
        "worst": count,
        "found": int(flagged[lowest].sum()),
        "found_by_chance": count**2 / len(dice) if len(dice) else None,
        "dice_flagged": statistics.mean(dice[flagged]),
    }


def clopper_pearson(hits: int, trials: int) -> list[float] | None:
    """Returns the exact 95 % interval of a share; None without trials."""
    if not trials:
        return None
    found = scipy.stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    return [float(found.low), float(found.high)]


def judge(rows: Sequence[Row], model: Quality) -> dict[str, Any]:
    """Returns the content of review.json: a run's quality map on its test cases.

    A failure is a Dice below the highest of 0.5, 0.7, 0.8 and 0.9 that at most half of
    the validation cases miss, so that failures are exceptions. skill = 1 - MAE(map) /
    MAE(constant), where the constant is the median Dice of the validation cases.

    Args:
      rows: rows of the run's cases.csv.
      model: fitted to the run's training cases.
    """
    rows = cases_table.with_delivered_dice(rows)
    level = quality.supported_level(model, LEVEL)
    test = [row for row in rows if row["split"] == "test" and row["status"] == OK]
    judged = [_review_row(row, model, level) for row in test]
    dice = cases_table.column(test, "dice")
    lower = cases_table.column(judged, "dice_lower")
    worst = rule.worst(judged, _REVIEW_FRACTION, {"": model})
    flagged = np.array([index in worst for index in range(len(test))], bool)
    rho, skill = _rho_and_skill(rows, test, judged, model)
    target = failure_dice(cases_table.column(rows, "dice", "validation"))
    failing = appraise(dice, flagged, target)
    found = worst_found(dice, flagged)
    return {
        "verdict": _verdict(rho, skill, int((~np.isnan(dice)).sum())),
        "flags": _worst_words(found, failing) + _sensitivity_words(failing),
        "bounds": quality.bound_words(model, LEVEL),
        "rho": {"value": rho["value"], "ci95": rho["ci95"]},
        "skill": {"value": skill["value"], "ci95": skill["ci95"]},
        "predicted_dice": prediction_errors.describe(
            [prediction_errors.judged(rows, model)]
        ),
        "level": level,
        "method": model.method,
        "calibration_cases": len(model.residuals),
        "greatest_level": quality.greatest_level(len(model.residuals)),
        "flagged_by_target": appraise(dice, ~(lower >= target), target),
        "flagged_by_fraction": {"fraction": _REVIEW_FRACTION, **failing, **found},
    }


def of_run(rows: Sequence[Row]) -> str:
    """Returns the verdict on a run's quality map in a sentence; "" without a map."""
    try:
        return judge(rows, quality.fit(rows))["verdict"]
    except InputError:
        return ""


def warnings(verdict: str) -> tuple[str, ...]:
    """Returns the warnings that a bad verdict adds to every case; () otherwise."""
    said = "this run's measures do not rank its cases"
    return (said,) if said[1:] in verdict else ()


def store(workdir: Path, rows: Sequence[Row]) -> str:
    """Writes RUN/quality.json and RUN/review.json; returns lines for the console.

    With too few cases for a map neither file is written, and old ones are removed.
    """
    try:
        model = quality.fit(rows)
    except InputError as error:
        logging.warning("no predicted quality: %s", error)
        for name in ("quality.json", "review.json"):
            (workdir / name).unlink(missing_ok=True)
        return quality.bound_words(None, LEVEL)
    found = judge(rows, model)
    files.write_json(workdir / "quality.json", quality.to_json(model))
    files.write_json(workdir / "review.json", found)
    return "\n".join([found["verdict"], found["flags"], found["bounds"]])


def _rho_and_skill(
    rows: Sequence[Row], test: Sequence[Row], judged: Sequence[Row], model: Quality
) -> tuple[dict[str, Any], dict[str, Any]]:
    dice = cases_table.column(test, "dice")
    if not len(dice):
        nothing = statistics.finding(statistics.Estimate(None, dice))
        return nothing, nothing
    drawn = resampled(test)
    scores = [dice_map.score(model.map, row) for row in test]
    rho = statistics.estimate_spearman(scores, dice, drawn)
    held_out = cases_table.column(rows, "dice", "validation")
    constant = np.median(held_out[~np.isnan(held_out)])
    of_map = np.abs(cases_table.column(judged, "predicted_dice") - dice)
    ours = statistics.estimate_mean(of_map, drawn)
    theirs = statistics.estimate_mean(np.abs(constant - dice), drawn)
    if ours.value is None or not theirs.value:
        skill = statistics.Estimate(None, np.full(len(drawn), np.nan))
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = 1 - ours.draws / theirs.draws
        skill = statistics.Estimate(1 - ours.value / theirs.value, draws)
    return statistics.finding(rho), statistics.finding(skill)


def _review_row(row: Row, model: Quality, level: float) -> Row:
    shared = {name: value for name, value in row.items() if name in REVIEW_COLUMNS}
    plain = cases_table.new_row(REVIEW_COLUMNS, **shared)
    return quality.with_estimate(plain, model, level)


def _verdict(rho: dict[str, Any], skill: dict[str, Any], n: int) -> str:
    if rho["ci95"] is None:
        return (
            "It is unknown whether this run's measures rank its cases: "
            f"{counted(n, 'test case')}."
        )
    low, high = rho["ci95"]
    numbers = f"rho {rho['value']:.2f}, 95 % {low:.2f} to {high:.2f}, n = {n}"
    if low <= 0:
        return f"This run's measures do not rank its cases ({numbers})."
    words = f"This run's measures rank its cases ({numbers})"
    if skill["ci95"] is None:
        return f"{words}."
    low, high = skill["ci95"]
    shown = f"(skill {skill['value']:.2f}, 95 % {low:.2f} to {high:.2f})"
    if low > 0:
        return f"{words}; the predicted Dice beats a constant {shown}."
    return f"{words}; the predicted Dice is not shown to beat a constant {shown}."


def _worst_words(found: dict[str, Any], failing: dict[str, Any]) -> str:
    """Returns a sentence on a review of the worst cases; "" without cases."""
    if not found["worst"] or failing["dice_kept"] is None:
        return ""
    return (
        f"Reviewing the {100 * _REVIEW_FRACTION:g} % least certain of "
        f"{counted(failing['n'], 'test case')} finds {found['found']} of the "
        f"{found['worst']} worst (by chance {found['found_by_chance']:.1f}): mean Dice "
        f"{found['dice_flagged']:.2f}, of the others {failing['dice_kept']:.2f}. "
    )


def _sensitivity_words(found: dict[str, Any]) -> str:
    failures, interval = found["failures"], found["sensitivity_ci95"]
    words = f"failures (Dice < {found['target_dice']:g}) among "
    words += counted(found["n"], "test case")
    if found["few_failures"] or interval is None:
        return f"Too few {words} to judge the flags: {failures}."
    return (
        f"The worst {100 * _REVIEW_FRACTION:g} % hold "
        f"{100 * found['sensitivity']:.0f} % of {failures} {words} (95 % "
        f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %; by chance "
        f"{100 * found['flagged'] / found['n']:.0f} %)."
    )
