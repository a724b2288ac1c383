"""Measures samples made by any tool and lists the cases to review first.

--samples/CASE/*.nii.gz are the N masks or probability maps of a case, unless --pattern
says otherwise; a file may hold several samples. Writes the files that `predict` writes;
with --references also study/. Exit codes: 0 done, 2 wrong input, 4 some cases failed
(their rows say why).
"""

import argparse
import itertools
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from unc_jax import cli
from unc_jax.cli import Parser, run_command
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import (
    by_structure,
    command_flags,
    failures,
    known_cases,
    nnunet_folds,
    outcome,
    own_files,
    passed_over,
    pictures,
    quality,
    report,
    rule,
    sample_counts,
    score_case,
    structures,
)
from unc_jax.review.find_samples import DEFAULT_PATTERN, FoundSamples, find_samples
from unc_jax.review.rule import Rule
from unc_jax.review.structures import Wanted, map_values
from unc_jax.segmentation.progress import Progress
from unc_jax.study.cases_table import Row


def run(arguments: argparse.Namespace) -> int:
    """Scores every case and writes the output; returns the exit code."""
    _check(arguments)
    wanted = command_flags.rule_of(arguments)
    known = _known(arguments.calibrate, arguments.largest_component)
    arguments, training = _with_folds(arguments)
    output, request = arguments.output, _request(arguments)
    pattern = arguments.pattern or DEFAULT_PATTERN
    found = find_samples(arguments.samples, pattern, output)
    flags = command_flags.flags_of(arguments)
    tables = own_files.of_tables(output, study=request.references is not None)
    parts = [tables, *(own_files.of_case(output, case) for case in found.samples)]
    read = itertools.chain(request.read(found.samples), *found.samples.values())
    own_files.check(parts, [*read, arguments.calibrate, arguments.names])
    with files.hold(output, "unc_jax.score"):
        tables.begin()
        passed_over.say(found.passed_over)
        rows, components = _score(found, request)
        rows = [
            nnunet_folds.mark_leaked(row, found.samples[str(row["case"])], training)
            for row in rows
        ]
        rows = sample_counts.warn_of_other_counts(rows)
        rows, wanted, notes = _judge(rows, known, wanted)
        fair = {row["case"] for row in by_structure.unseen(rows)}
        told = [row for row in components if row["case"] in fair]
        notes += by_structure.presence_notes(told)
        if arguments.references:
            by_structure.write_study(rows, output / "study")
        outcome.finish(
            output,
            rows,
            title=f"Review: samples of {arguments.samples}",
            facts=_facts(arguments, flags, rows),
            details=_details(request.wanted, found),
            known=known,
            wanted=wanted,
            notes=notes,
            components=components,
        )
    return outcome.print_outcome(output, rows, notes)


def _known(calibrate: Path | None, largest: bool) -> list[Row]:
    """Returns the cases with a known Dice; refuses unfit ones before the work."""
    if calibrate is None:
        return []
    known = known_cases.read_known(calibrate)
    known_cases.check_origin(calibrate, None, {}, largest=largest)
    by_structure.fit(known, [])
    return known


def _with_folds(
    arguments: argparse.Namespace,
) -> tuple[argparse.Namespace, list[set[str]]]:
    """Returns the arguments, of folds as of other samples, and the training cases.

    These are read wherever nnU-Net's split lies beside the samples.
    """
    if folds := arguments.nnunet_folds:
        as_samples = {"samples": folds, "pattern": nnunet_folds.PATTERN}
        arguments = argparse.Namespace(**{**vars(arguments), **as_samples})
    return arguments, nnunet_folds.read_training(arguments.samples)


def _request(arguments: argparse.Namespace) -> score_case.ScoreRequest:
    return score_case.ScoreRequest(
        arguments.output,
        _wanted(arguments),
        arguments.references,
        arguments.images,
        tuple(arguments.window),
        arguments.largest_component,
    )


def _judge(
    rows: list[Row], known: Sequence[Row], wanted: Rule
) -> tuple[list[Row], Rule, list[str]]:
    """Returns the rows with predicted Dice and flags, worst first, rule and notes.

    The returned rule has the level that the known cases support; the notes are
    sentences of the report on the predictions and the rule.
    """
    models, notes = {}, []
    try:
        models = by_structure.fit(known, rows) if known else {}
    except InputError as error:  # too few known cases: the rows are still useful
        notes.append(f"No predicted Dice: {error}.")
    notes += by_structure.bound_words(models, wanted.level)
    if models:
        used = [quality.supported_level(m, wanted.level) for m in models.values()]
        lowest = min(used) if min(used) < max(used) else None
        wanted = wanted._replace(level=max(used), lowest_level=lowest)
        rows = [by_structure.with_estimate(r, models, wanted.level) for r in rows]
    rows = rule.order(rule.decide(rows, wanted, models))
    said = rule.release_words(wanted, models, rows), rule.one_sample_words(rows)
    notes += filter(None, said)
    return rows, wanted, notes


def _score(found: FoundSamples, request: score_case.ScoreRequest) -> score_case.Scored:
    scored = score_case.Scored([], [])
    progress = Progress("score", len(found.samples), "case")
    for done, (case, paths) in enumerate(found.samples.items(), start=1):
        started = time.perf_counter()
        try:
            score_case.check_name(case)
            with own_files.of_case(request.output, case).writing():
                found.check(case)
                own, parts = score_case.score_case(case, paths, request)
        except Exception as error:
            if failures.is_of_the_disk(error, request.output):
                raise
            parts, own = [], [failures.failed_row(case, paths[0].parent, error)]
            if request.wanted.single:
                own[0]["structure"] = request.wanted.listed[0].name
        seconds = (time.perf_counter() - started) / len(own)
        scored.rows.extend({**row, "seconds": round(seconds, 3)} for row in own)
        scored.components.extend(parts)
        progress(done, case)
    return scored


def _check(arguments: argparse.Namespace) -> None:
    if arguments.target_dice is not None and not arguments.calibrate:
        raise InputError(
            "--target-dice needs --calibrate CASES_CSV, a table of cases with Dice"
        )
    if arguments.nnunet_folds and arguments.pattern:
        raise InputError("--pattern is of --samples; --nnunet-folds has its own")
    for name in ("references", "images"):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            raise InputError(f"--{name} {folder}: no such folder")
    if not arguments.window[0] < arguments.window[1]:
        raise InputError("--window needs a lower value and a higher one")


def _wanted(arguments: argparse.Namespace) -> Wanted:
    """Returns the structures that --label and --names ask for."""
    if not arguments.label:
        return Wanted()
    if arguments.names:
        names, place = structures.read_names(arguments.names), str(arguments.names)
    else:
        names, place = structures.find_names(arguments.samples, arguments.references)
    return structures.wanted_of(arguments.label, names, place)


def _details(wanted: Wanted, found: FoundSamples) -> dict[str, Any]:
    """Returns the fields of run.json that the report does not show."""
    values = {} if wanted.single else {"structures": map_values(wanted.listed)}
    return {**values, "passed_over": passed_over.reasons(found.passed_over)}


def _facts(
    arguments: argparse.Namespace, flags: dict[str, str], rows: list[Row]
) -> dict[str, str]:
    counts = sorted({int(row["n_samples"]) for row in rows if row["n_samples"]})
    labels = ",".join("+".join(map(str, parts)) for parts in arguments.label)
    return {
        **{k: v for k, v in flags.items() if k not in ("window", "label")},
        **({"label": labels} if labels else {}),
        "pictures": "scan" if arguments.images else "mean of the samples, 0 to 1",
        "samples a case": ", ".join(map(str, counts)) or "none",
        **report.versions(),
    }


def _parser() -> Parser:
    parser = Parser(
        "unc_jax.score",
        "Measures samples from any tool and lists the cases to review first.",
        example="--samples folds --pattern 'fold_{sample}/{case}' --output review",
    )
    samples = parser.add_mutually_exclusive_group(required=True)
    samples.add_argument("--samples", type=Path, help="folder of samples")
    samples.add_argument(
        "--nnunet-folds",
        type=Path,
        metavar="FOLDER",
        help="folder with the predictions fold_0, fold_1, ... of an nnU-Net",
    )
    parser.add_output()
    parser.add_argument(
        "--pattern",
        help="path of a sample in --samples, with {case}, {sample} and * (default "
        f"{DEFAULT_PATTERN}); without {{sample}} a file holds all samples of a case",
    )
    parser.add_argument(
        "--label",
        type=cli.labels,
        default=(),
        help="structures: label numbers, or names in dataset.json, e.g. spleen,1+2; "
        "or all",
    )
    parser.add_argument(
        "--names", type=Path, help='JSON file with names of labels, as {"1": "liver"}'
    )
    parser.add_argument(
        "--references",
        type=Path,
        help="folder of masks CASE.nii.gz, to compute the Dice",
    )
    parser.add_argument(
        "--images", type=Path, help="folder of scans CASE.nii.gz, for the pictures"
    )
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        default=pictures.WINDOW_HU,
        metavar=("LOW", "HIGH"),
        help="grey values of the pictures, default %(default)s",
    )
    command_flags.add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 on wrong input, with 4 if a case failed."""
    run_command(run, _parser(), argv, interrupted=cli.BEGINS_ANEW)


class _CallableModule(types.ModuleType):
    """Makes this module callable: unc_jax.score is both a command and a function."""

    def __call__(self, samples: ArrayLike) -> dict[str, float]:
        """Returns `unc_jax.api.score(samples)`."""
        from unc_jax import api  # imports the network, which the command does not need

        return api.score(samples)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    main()
