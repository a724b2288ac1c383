"""Segments a user's own scans and lists those that a human should review first.

--input is a NIfTI file, a folder of NIfTI files or DICOM series, or a Decathlon or
nnU-Net set. Writes --output/cases.csv (worst first), report.html, run.json, and per
case CASE/{mask,mean,uncertainty}.nii.gz and a picture. Finished cases are not segmented
again. Until all cases are done, their rows are in cases.unfinished.csv. Exit codes: 0
done, 2 wrong input, 4 some cases failed (their rows say why).
"""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from unc_jax import compilation, runtime
from unc_jax.cli import Parser, run_command
from unc_jax.data import files
from unc_jax.errors import InputError, counted
from unc_jax.review import (
    command_flags,
    failures,
    known_cases,
    outcome,
    own_files,
    passed_over,
    quality,
    report,
    rule,
    scans,
    segment_case,
    verdict,
)
from unc_jax.review.quality import Quality
from unc_jax.review.references import References
from unc_jax.review.scans import FoundScans, Scan
from unc_jax.review.segment_case import SegmentRequest
from unc_jax.review.segment_scan import Segmenter, build_segmenter
from unc_jax.segmentation.progress import Progress
from unc_jax.study import cases_table, run_folder
from unc_jax.study.cases_table import Row
from unc_jax.study.run_folder import RunFolder


def run(arguments: argparse.Namespace) -> int:
    """Segments every scan and writes the output; returns the exit code."""
    wanted = command_flags.rule_of(arguments)
    if arguments.distributed:
        runtime.initialize()
    trained = run_folder.open_run(arguments.run)
    seen = {str(row["case"]) for row in trained.rows if row["split"] == "train"}
    known, model = _known_quality(trained, arguments, seen)
    models = {"": model} if model else {}
    wanted = wanted._replace(level=quality.supported_level(model, wanted.level))
    worth = verdict.of_run(trained.rows)
    bounds = quality.bound_words(model, arguments.level)
    found = scans.find_scans(arguments.input)
    compared = References(trained, arguments.input, arguments.references)
    output, request = arguments.output, _request(arguments)
    tables = own_files.of_tables(output)
    parts = [tables, *(request.part(scan.case) for scan in found.scans)]
    own_files.check(parts, _read(arguments, found, request, compared))
    flags = command_flags.flags_of(arguments)
    if runtime.is_main():
        print(bounds, file=sys.stderr)  # before the work: users may want to stop here
        passed_over.say(found.passed_over)
    segmenter = _segmenter(trained, model, wanted.level, arguments.liver_run)
    segment_case.check(request, segmenter)
    with (
        files.hold_for_all(output, "unc_jax.predict"),
        compilation.cache_compilations(output),
    ):
        if runtime.is_main():
            tables.begin()
        rows: list[Row] = []  # the main process writes the tables
        for row in _segmented(found.scans, segmenter, request, compared, seen):
            rows.append(cases_table.with_warnings(row, *verdict.warnings(worth)))
            if runtime.is_main():
                outcome.write_unfinished(output, rule.decide(rows, wanted, models))
        rows = rule.decide(_of_all_processes(rows), wanted, models)
        notes = [*filter(None, [worth, rule.release_words(wanted, models, rows)])]
        if runtime.is_main():
            outcome.finish(
                output,
                rows,
                title=f"Review: {arguments.input}",
                facts=_facts(arguments, found),
                details={
                    "reference_labels": list(compared.values),
                    **_details(flags, segmenter, request, found),
                },
                known=known,
                wanted=wanted,
                notes=[*notes, bounds],
            )
        runtime.barrier()
    return outcome.print_outcome(output, rows, notes)


def _request(arguments: argparse.Namespace) -> SegmentRequest:
    return SegmentRequest(
        arguments.output,
        arguments.liver_masks,
        arguments.samples_too,
        arguments.dicom_seg,
        arguments.largest_component,
    )


def _read(
    arguments: argparse.Namespace,
    found: FoundScans,
    request: SegmentRequest,
    compared: References,
) -> list[Path | None]:
    """Returns the files that the command reads, without those of the run."""
    read: list[Path | None] = [path for scan in found.scans for path in scan.files()]
    read += compared.files(found.scans)
    for scan in found.scans:
        with contextlib.suppress(InputError):  # which the case then says
            read.append(request.liver_mask(scan))
    return [*read, arguments.calibrate]


def _known_quality(
    trained: RunFolder, arguments: argparse.Namespace, seen: set[str]
) -> tuple[list[Row], Quality | None]:
    """Returns cases with a known Dice, and the quality map calibrated on them.

    seen: the run's training cases, which calibrate nothing.
    """
    known, model = trained.rows, quality.of_run(trained)
    if arguments.calibrate:
        known = known_cases.read_known(arguments.calibrate, seen)
        if named := sorted({str(row["structure"]) for row in known} - {""}):
            raise InputError(
                f"{arguments.calibrate}: has rows of {', '.join(named)}, as tables of "
                "score; calibrate a run by cases that it has segmented, a cases.csv of "
                "predict or of its evaluation"
            )
        known_cases.check_samples(arguments.calibrate, known, trained.rows)
        known_cases.check_origin(
            arguments.calibrate,
            (trained.evaluation or {}).get("checkpoints"),
            trained.config,
            largest=arguments.largest_component,
        )
        measures = known_cases.fit_measures(known, trained.rows)
        model = quality.fit(trained.rows, calibration=known, measures=measures)
    elif model and arguments.largest_component:
        # The validation cases' Dice is of masks with all their components.
        model = quality.without_calibration(model)
    return known, model


def _segmenter(
    trained: RunFolder, model: Quality | None, level: float, liver_run: Path | None
) -> Segmenter:
    liver = liver_run and build_segmenter(run_folder.open_run(liver_run))
    return build_segmenter(trained, quality=model, level=level, liver=liver)


def _segmented(
    found: Sequence[Scan],
    segmenter: Segmenter,
    request: SegmentRequest,
    compared: References,
    seen: set[str],
) -> Iterator[Row]:
    """Yields the row of each scan in this process's share, with its Dice.

    The row has the predicted Dice and, where a reference is known, the true one. A scan
    named as one of `seen`, the run's training cases, is marked as leaked.
    """
    share = found[runtime.process_index() :: runtime.process_count()]
    progress = Progress("predict", len(share), "case")
    for done, scan in enumerate(share, start=1):
        row = _attempt(scan, segmenter, request)
        if scan.case in seen:
            row = cases_table.leaked(row, "a training case of the run has its name")
        row = quality.with_estimate(row, segmenter.quality, segmenter.level)
        mask = request.output / scan.case / "mask.nii.gz"
        yield compared.with_dice(row, scan, mask)
        progress(done, scan.case)


def _attempt(scan: Scan, segmenter: Segmenter, request: SegmentRequest) -> Row:
    try:
        finished = segment_case.finished_row(scan, segmenter, request)
        return finished or segment_case.segment_case(scan, segmenter, request)
    except Exception as error:
        if failures.is_of_the_disk(error, request.output):
            raise
        return failures.failed_row(scan.case, scan.path, error)


def _of_all_processes(own: list[Row]) -> list[Row]:
    """Returns the rows of all processes, in the order of the scans."""
    shares = runtime.all_gather(own)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return [row for row in in_turn if row is not None]


def _facts(arguments: argparse.Namespace, found: FoundScans) -> dict[str, str]:
    facts = {"run": str(arguments.run), "scans": str(arguments.input)}
    if found.passed_over:
        facts["passed over"] = (
            f"{counted(len(found.passed_over), 'file')}, see run.json"
        )
    return {**facts, **report.versions()}


def _details(
    flags: dict[str, str],
    segmenter: Segmenter,
    request: SegmentRequest,
    found: FoundScans,
) -> dict[str, object]:
    """Returns the fields of run.json that the report does not show."""
    return {
        "flags": flags,
        "config": segmenter.run.config,
        "steps": segmenter.predictor.steps,
        "checkpoints": segmenter.predictor.digests,
        "fingerprint": request.fingerprint(segmenter),
        "seed": segmenter.run.seed,
        "device": str(jax.devices()[0].device_kind),
        "sha256": {scan.case: request.segmented(scan) for scan in found.scans},
        "passed_over": passed_over.reasons(found.passed_over),
    }


def _parser() -> Parser:
    parser = Parser(
        "unc_jax.predict",
        "Segments scans and lists those that a human should review first.",
        example="--run runs/liver --input scans --output review --target-dice 0.9",
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of an evaluated run"
    )
    parser.add_argument(
        "--input", type=Path, required=True, help="scan, or folder of scans"
    )
    parser.add_output()
    parser.add_argument(
        "--references",
        type=Path,
        help="folder of masks CASE.nii.gz, to compute the Dice; a labelled data set as "
        "--input needs none",
    )
    liver = parser.add_mutually_exclusive_group()
    liver.add_argument(
        "--liver-masks",
        type=Path,
        help="folder of liver masks CASE.nii.gz, for a run that segments tumours",
    )
    liver.add_argument(
        "--liver-run",
        type=Path,
        help="run that segments the liver, for a run that segments tumours",
    )
    parser.add_argument(
        "--samples-too",
        action="store_true",
        help="also write the samples, CASE/samples/NN.nii.gz",
    )
    parser.add_argument(
        "--dicom-seg",
        action="store_true",
        help="also write CASE/{mask,mean,uncertainty}.dcm for DICOM series",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="this process is one of several that share the scans",
    )
    command_flags.add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 on wrong input, with 4 if a case failed."""
    run_command(run, _parser(), argv)


if __name__ == "__main__":
    main()
