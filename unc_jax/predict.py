"""Segments a user's own scans and says which segmentations a human should review.

python -m unc_jax.predict --run RUN --input PATH --output DIR
    [--target-dice 0.9] [--review-fraction 0.1] [--level 0.9] [--calibrate CASES_CSV]
    [--liver-masks DIR | --liver-run RUN] [--samples-too] [--dicom-seg]
    [--distributed]

PATH is a NIfTI file, a folder of them, of DICOM series, or a Decathlon or nnU-Net set.
Exit codes: 0 done, 2 wrong input, 4 some cases failed (their rows say why).
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import logging

from unc_jax import runtime
from unc_jax.cli import SOME_FAILED, Parser, run_command
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import (
    calibration,
    quality,
    report,
    rule,
    scans,
    segment_scan,
)
from unc_jax.review.quality import Quality
from unc_jax.review.scans import Scan
from unc_jax.review.segment_scan import Segmenter
from unc_jax.review.segmenter import build_segmenter
from unc_jax.segmentation.progress import Progress
from unc_jax.study import cases_table, run_folder
from unc_jax.study.cases_table import REVIEW_COLUMNS, Row
from unc_jax.study.run_folder import Run


def run(arguments: argparse.Namespace) -> int:
    """Segments every scan and writes the output; returns the exit code."""
    wanted = rule.Rule(
        arguments.target_dice, arguments.review_fraction, arguments.level
    )
    rule.check(wanted)
    if arguments.distributed:
        runtime.initialize()
    trained = run_folder.open_run(arguments.run)
    known, model = _known_quality(trained, arguments)
    found = scans.find_scans(arguments.input)
    output = arguments.output
    with (
        files.hold_for_all(output, "unc_jax.predict"),
        runtime.cache_compilations(output),
    ):
        if runtime.is_main():
            files.sweep(output)
        segmenter = build_segmenter(trained, arguments)
        rows: list[Row] = []
        # Of several processes each segments its share, and the first one writes.
        share = found[runtime.process_index() :: runtime.process_count()]
        for row in _segmented(share, segmenter, output):
            rows.append(_with_quality(row, model, arguments.level))
            if runtime.is_main():
                _write_table(output, rule.decide(rows, wanted))
        rows = rule.decide(_of_all(rows), wanted)
        if runtime.is_main():
            _write_table(output, rows)
            _write_report(arguments, rows, segmenter, found, (known, wanted))
        runtime.shutdown()
    failed = sum(str(row["status"]).startswith(cases_table.FAILED) for row in rows)
    flagged = sum(row["flag"] == "yes" for row in rows)
    if runtime.is_main():
        print(f"{len(rows)} cases, {flagged} to review, {failed} failed")
        print(f"cases:  {output / 'cases.csv'}\nreport: {output / 'report.html'}")
    return SOME_FAILED if failed else 0


def _write_table(output: Path, rows: list[Row]) -> None:
    cases_table.write_rows(output / "cases.csv", rule.order(rows), REVIEW_COLUMNS)


def _of_all(own: list[Row]) -> list[Row]:
    """The rows of all processes, in the order of the scans."""
    told = json.dumps(own, default=lambda number: number.item())
    shares = [
        json.loads(runtime.broadcast(told, source=p))
        for p in range(runtime.process_count())
    ]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return [row for row in in_turn if row is not None]


def _write_report(
    arguments: argparse.Namespace,
    rows: list[Row],
    segmenter: Segmenter,
    found: list[Scan],
    judged: tuple[list[Row], rule.Rule],
) -> None:
    """run.json and report.html; `judged` by cases of known Dice and by a rule."""
    trained, output = segmenter.run, arguments.output
    known, wanted = judged
    facts = {
        "run": str(trained.path),
        "scans": str(arguments.input),
        **report.versions(),
    }
    details = {
        "config": trained.config,
        "steps": segmenter.predictor.steps,
        "fingerprint": segmenter.fingerprint,
        "seed": trained.seed,
        "device": str(jax.devices()[0].device_kind),
        "sha256": {str(scan.case): scan.digest() for scan in found},
    }
    files.write_json(output / "run.json", {**facts, **details})
    report.write_review_report(
        output / "report.html",
        rows,
        title=f"Review: {arguments.input}",
        facts=facts,
        pictures=output / "pictures",
        known=calibration.distributions(known),
        rule_text=rule.describe(wanted),
    )


def _known_quality(
    trained: Run, arguments: argparse.Namespace
) -> tuple[list[Row], Quality | None]:
    """Cases with a known Dice, and the quality map calibrated with them."""
    known, model = trained.rows, calibration.quality_of(trained)
    if arguments.calibrate:
        known = calibration.read_calibration(arguments.calibrate)
        model = quality.fit(trained.rows, calibration=known)
    if model is None:
        print(
            f"{trained.path} predicts no Dice: too few validation cases; name cases "
            "with a reference by --calibrate CASES_CSV",
            file=sys.stderr,
        )
        return known, None
    greatest = quality.greatest_level(len(model.residuals))
    if arguments.level > greatest:
        print(
            f"no lower bound at level {arguments.level:g}: {len(model.residuals)} "
            f"calibration cases support {greatest:.3f} at most",
            file=sys.stderr,
        )
    return known, model


def _segmented(found: list[Scan], segmenter: Segmenter, output: Path):
    """Rows as they come; finished cases are not segmented again."""
    progress = Progress("predict", len(found), "cases")
    for done, scan in enumerate(found, start=1):
        folder = output / scan.case
        row = segment_scan.finished_row(folder, scan, segmenter.fingerprint)
        yield row or _attempt(scan, segmenter, output)
        progress(done, scan.case)


def _attempt(scan: Scan, segmenter: Segmenter, output: Path) -> Row:
    try:
        return segment_scan.segment_case(scan, segmenter, output)
    except Exception as error:
        if isinstance(error, OSError) and (
            Path(error.filename or output).is_relative_to(output)
        ):
            raise  # of the output: no later case would fare better
        words = " ".join(str(error).split())[:300]
        if not isinstance(error, InputError):
            logging.exception("case %s failed", scan.case)
            words = f"{type(error).__name__}: {words}"
        return cases_table.new_row(
            REVIEW_COLUMNS,
            case=scan.case,
            status=cases_table.FAILED + words,
            input=str(scan.path),
        )


def _with_quality(row: Row, model: Quality | None, level: float) -> Row:
    if model is None or not cases_table.is_usable(row):
        return row
    found = quality.predict(model, row, level)
    return cases_table.new_row(
        REVIEW_COLUMNS,
        **{**row, "predicted_dice": found.predicted, "dice_lower": found.lower},
    )


def _parser() -> Parser:
    parser = Parser(
        "unc_jax.predict",
        "Segments scans and lists those a human should review first.",
        example="--run runs/liver --input scans --output review --target-dice 0.9",
    )
    parser.add_argument("--run", type=Path, required=True, help="trained run")
    parser.add_argument("--input", type=Path, required=True, help="scan or folder")
    parser.add_output()
    parser.add_argument("--liver-masks", type=Path, help="folder of CASE.nii.gz")
    parser.add_argument("--liver-run", type=Path, help="run that finds the liver")
    parser.add_argument(
        "--samples-too", action="store_true", help="also CASE/samples/NN.nii.gz"
    )
    parser.add_argument(
        "--dicom-seg", action="store_true", help="of DICOM series also CASE/mask.dcm"
    )
    parser.add_argument(
        "--distributed", action="store_true", help="one of several processes of a run"
    )
    rule.add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 on wrong input, with 4 if a case failed."""
    run_command(run, _parser(), argv)


if __name__ == "__main__":
    main()
