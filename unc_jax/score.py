"""Measures, quality and a review list for samples that any tool made.

python -m unc_jax.score --samples DIR --output DIR
    [--pattern 'fold_{sample}/{case}'] [--label 1,2] [--references DIR] [--images DIR]
    [--calibrate CASES_CSV] [--target-dice 0.9] [--review-fraction 0.1] [--level 0.9]

DIR/CASE/*.nii.gz are the N masks or probability maps of a case, unless --pattern says
otherwise. Exit codes: 0 done, 2 wrong input, 4 some cases failed (their rows say why).
"""

import argparse
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from numpy.typing import ArrayLike

from unc_jax import api
from unc_jax.cli import SOME_FAILED, Parser, run_command
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import (
    calibration,
    pictures,
    read_samples,
    report,
    rule,
    score_case,
)
from unc_jax.segmentation.progress import Progress
from unc_jax.study import cases_table
from unc_jax.study.cases_table import REVIEW_COLUMNS, Row


def run(arguments: argparse.Namespace) -> int:
    """Scores every case and writes the output; returns the exit code."""
    output = arguments.output
    _check(arguments)
    known = (
        calibration.read_calibration(arguments.calibrate) if arguments.calibrate else []
    )
    model = calibration.Calibration(known, []) if known else None
    wanted = rule.Rule(
        arguments.target_dice, arguments.review_fraction, arguments.level
    )
    rule.check(wanted)
    found = read_samples.find_samples(arguments.samples, arguments.pattern)
    request = score_case.Request(
        output,
        arguments.label,
        arguments.references,
        arguments.images,
        tuple(arguments.window),
    )
    with files.hold(output, "unc_jax.score"):
        rows = _score(found, request)
        if model is not None:
            model = calibration.Calibration(known, rows)
            for name, reason in model.left_out.items():
                print(f"{name} is left out: {reason}", file=sys.stderr)
            rows = [model.apply(row, arguments.level) for row in rows]
        rows = rule.order(_decided(rows, wanted, model is not None))
        cases_table.write_rows(output / "cases.csv", rows, REVIEW_COLUMNS)
        if arguments.references:
            score_case.write_study(rows, output / "study")
        facts = _facts(arguments, rows)
        if model is not None:
            facts["lower bounds"] = model.support
        files.write_json(output / "run.json", facts)
        report.write_review_report(
            output / "report.html",
            rows,
            title=f"Review: samples of {arguments.samples}",
            facts=facts,
            pictures=output / "pictures",
            known=calibration.distributions(known),
            rule_text=rule.describe(wanted),
        )
    failed = sum(str(row["status"]).startswith("failed") for row in rows)
    flagged = sum(row["flag"] == "yes" for row in rows)
    print(f"{len(rows)} cases, {flagged} to review, {failed} failed")
    print(f"cases:  {output / 'cases.csv'}\nreport: {output / 'report.html'}")
    return SOME_FAILED if failed else 0


def _score(found: dict[str, list[Path]], request: score_case.Request) -> list[Row]:
    rows, progress = [], Progress("score", len(found), "cases")
    for done, (case, paths) in enumerate(found.items(), start=1):
        started = time.perf_counter()
        try:
            row = score_case.score_case(case, paths, request)
        except OSError:  # of the output: no later case would fare better
            raise
        except Exception as error:
            row = _failed_row(case, paths, error)
        row["seconds"] = round(time.perf_counter() - started, 3)
        rows.append(row)
        progress(done, case)
    return rows


def _failed_row(case: str, paths: list[Path], error: Exception) -> Row:
    words = " ".join(str(error).split())[:300]
    if not isinstance(error, InputError):
        logging.exception("case %s failed", case)
        words = f"{type(error).__name__}: {words}"
    return cases_table.new_row(
        REVIEW_COLUMNS, case=case, status=f"failed: {words}", input=str(paths[0].parent)
    )


def _decided(rows: list[Row], wanted: rule.Rule, calibrated: bool) -> list[Row]:
    if calibrated:
        return rule.decide(rows, wanted)
    # Without a predicted Dice the fraction goes by D_pw, which is a Dice itself.
    ranked = [{**row, "predicted_dice": row["d_pw"]} for row in rows]
    return [{**row, "predicted_dice": None} for row in rule.decide(ranked, wanted)]


def _check(arguments: argparse.Namespace) -> None:
    if arguments.target_dice is not None and not arguments.calibrate:
        raise InputError("--target-dice needs --calibrate, cases with a known Dice")
    for name in ("references", "images"):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            raise InputError(f"--{name} {folder}: no such folder")
    if not arguments.window[0] < arguments.window[1]:
        raise InputError("--window takes a lower and an upper value")


def _facts(arguments: argparse.Namespace, rows: list[Row]) -> dict[str, str]:
    counts = sorted({int(row["n_samples"]) for row in rows if row["n_samples"]})
    asked = {
        name: str(value)
        for name, value in vars(arguments).items()
        if value not in (None, ()) and name not in ("debug", "window")
    }
    return {
        **asked,
        "pictures": "scan" if arguments.images else "mean of the samples, 0 to 1",
        "samples a case": ", ".join(map(str, counts)) or "none",
        **report.versions(),
    }


def _labels(text: str) -> tuple[int, ...]:
    labels = tuple(int(part) for part in text.split(","))
    if min(labels) < 1:
        raise ValueError
    return labels


def _parser() -> Parser:
    parser = Parser(
        "unc_jax.score",
        "Measures samples of any tool and lists the cases to review first.",
        example="--samples folds --pattern 'fold_{sample}/{case}' --output review",
    )
    parser.add_argument("--samples", type=Path, required=True, help="folder of samples")
    parser.add_output()
    parser.add_argument(
        "--pattern",
        default=read_samples.DEFAULT_PATTERN,
        help="path of a sample below it, with {case}, {sample} and * (%(default)s)",
    )
    parser.add_argument(
        "--label", type=_labels, default=(), help="the organ's labels, e.g. 1 or 1,2"
    )
    parser.add_argument("--references", type=Path, help="folder of CASE.nii.gz")
    parser.add_argument("--images", type=Path, help="folder of scans, for the pictures")
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        default=pictures.WINDOW_HU,
        metavar=("LOW", "HIGH"),
        help="of the images, %(default)s",
    )
    rule.add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 on wrong input, with 4 if a case failed."""
    run_command(run, _parser(), argv)


class _CallableModule(types.ModuleType):
    """This module, which the package's function of the same name would hide."""

    def __call__(self, samples: ArrayLike) -> dict[str, float]:
        """Returns `unc_jax.api.score(samples)`: unc_jax.score is this module."""
        return api.score(samples)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    main()
