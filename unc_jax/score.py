"""Measures samples that any tool made and lists the cases to review first.

DIR/CASE/*.nii.gz are the N masks or probability maps of a case, unless --pattern says
otherwise. Writes what `predict` writes; with --references also study/. Exit codes:
0 done, 2 wrong input, 4 some cases failed (their rows say why).
"""

import argparse
import sys
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from unc_jax import cli
from unc_jax.cli import Parser, run_command
from unc_jax.data import dataset, files
from unc_jax.errors import InputError
from unc_jax.review import (
    pictures,
    quality,
    read_samples,
    report,
    rule,
    score_case,
    worklist,
)
from unc_jax.review.quality import Quality
from unc_jax.segmentation.progress import Progress
from unc_jax.study.cases_table import Row


def run(arguments: argparse.Namespace) -> int:
    """Scores every case and writes the output; returns the exit code."""
    output = arguments.output
    _check(arguments)
    wanted = worklist.rule_of(arguments)
    known: list[Row] = []
    if arguments.calibrate:
        known = worklist.read_known(arguments.calibrate)
        _fit(known, [])  # refuses too few cases before the work
    found = read_samples.find_samples(arguments.samples, arguments.pattern)
    request = score_case.Request(
        output,
        _label_values(arguments),
        arguments.references,
        arguments.images,
        tuple(arguments.window),
    )
    with files.hold(output, "unc_jax.score"):
        worklist.begin(output)
        rows = _score(found, request)
        model, notes = None, []
        if known:
            model = _fit(known, rows)
            wanted = wanted._replace(level=quality.supported_level(model, wanted.level))
            rows = [quality.with_estimate(row, model, wanted.level) for row in rows]
            notes.append(quality.bound_words(model, arguments.level))
        rows = rule.order(rule.decide(rows, wanted, model))
        notes += filter(None, [rule.release_words(wanted, model, rows)])
        if arguments.references:
            score_case.write_study(rows, output / "study")
        worklist.finish(
            output,
            rows,
            title=f"Review: samples of {arguments.samples}",
            facts=_facts(arguments, rows),
            details={},
            known=known,
            wanted=wanted,
            notes=notes,
        )
    return worklist.print_outcome(output, rows, notes)


def _score(
    found: Mapping[str, Sequence[Path]], request: score_case.Request
) -> list[Row]:
    rows, progress = [], Progress("score", len(found), "case")
    for done, (case, paths) in enumerate(found.items(), start=1):
        started = time.perf_counter()
        try:
            row = score_case.score_case(case, paths, request)
        except OSError:  # of the output: no later case would fare better
            raise
        except Exception as error:
            row = worklist.failed_row(case, paths[0].parent, error)
            if not paths[0].is_relative_to(request.output):  # the samples are kept
                worklist.clear_case(request.output, case)
        row["seconds"] = round(time.perf_counter() - started, 3)
        rows.append(row)
        progress(done, case)
    return rows


def _fit(known: Sequence[Row], rows: Sequence[Row]) -> Quality:
    """Fits predicted Dice to the known cases, by the measures fit to judge `rows`."""
    return quality.fit(known, measures=worklist.fit_measures(known, rows))


def _check(arguments: argparse.Namespace) -> None:
    if arguments.target_dice is not None and not arguments.calibrate:
        raise InputError("--target-dice needs --calibrate, cases with a known Dice")
    for name in ("references", "images"):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            raise InputError(f"--{name} {folder}: no such folder")
    if not arguments.window[0] < arguments.window[1]:
        raise InputError("--window takes a lower and an upper value")


def _label_values(arguments: argparse.Namespace) -> tuple[int, ...]:
    """Returns the values of --label; a name may stand for several of them.

    Names are those of the first dataset.json at the samples or references. Raises
    InputError for a name that is unknown, or that no dataset.json explains.
    """
    labels, samples = arguments.label, arguments.samples
    names = [label for label in labels if isinstance(label, str)]
    if not names:
        return labels
    folders = [samples, *sorted(path for path in samples.glob("*") if path.is_dir())]
    if arguments.references:
        folders += [arguments.references, arguments.references.parent]
    holders = [folder for folder in folders if (folder / "dataset.json").is_file()]
    if not holders:
        raise InputError(
            f"--label {names[0]}: no dataset.json at the samples or references says "
            "which number that is; give the number"
        )
    known = dataset.read_names(holders[0])
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise InputError(f"--label {name}: {holders[0]} has {listed}")
    numbers = [label for label in labels if isinstance(label, int)]
    return (*numbers, *(value for name in names for value in known[name]))


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
        "--label",
        type=cli.labels,
        default=(),
        help="the organ's labels: numbers, or names in dataset.json, e.g. 1,2",
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
    worklist.add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 on wrong input, with 4 if a case failed."""
    run_command(run, _parser(), argv)


class _CallableModule(types.ModuleType):
    """This module, which the package's function of the same name would hide."""

    def __call__(self, samples: ArrayLike) -> dict[str, float]:
        """Returns `unc_jax.api.score(samples)`: unc_jax.score is this module."""
        from unc_jax import api  # the network's modules, which the command needs not

        return api.score(samples)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    main()
