"""Writes the paper's tables and figures, and all statistics, of several finished runs.

The runs of all folds of a training (data.fold) are joined into one with all test cases.

Needs RUN/config.json and RUN/cases.csv; Figure 1 also needs RUN/panels, and the
calibration of voxels RUN/voxels.json. The source files of the numbers are copied to
OUTPUT/runs/NAME, so that anyone can recompute them; runs whose folders have the same
name are numbered.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unc_jax.cli import BEGINS_ANEW, Parser, run_command
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import own_files, prediction_errors, report
from unc_jax.study import (
    appraisal,
    charts,
    claims,
    comparison,
    factors,
    figures,
    grouping,
    paper_tables,
    run_folder,
    tables,
    voxel_agreement,
)
from unc_jax.study.grouping import Model
from unc_jax.study.statistics import RESAMPLES, SEED
from unc_jax.study.tables import Table

# Files of a run that are copied; they are small enough for a repository.
_KEPT = ("config.json", "cases.csv", "evaluation.json", "voxels.json", "metrics.jsonl")
# The smallest p is 2 / resamples; corrected for all claims it has to get below 0.05.
_FEWEST_RESAMPLES = 1000
_NAMES = {"liver": "table1", "tumor": "table2"}
_TABLES = (*_NAMES.values(), "claims", "measures", "factors", "quality", "voxels")
_FIGURES = ("figure1", "figure2", "referral", "reliability", "factors")
_WRITTEN = (
    *(f"{name}.md" for name in _TABLES),
    *(f"{name}.csv" for name in _NAMES.values()),
    *(f"{name}.png" for name in _FIGURES),
    "report.html",
)
_BEGUN = ".comparison-begun"  # there until statistics.json is


def compare(
    folders: Sequence[Path], output: Path, *, policy: str, resamples: int, seed: int
) -> None:
    """Reads and checks all runs, then writes everything under `output`."""
    if resamples < _FEWEST_RESAMPLES:
        raise InputError(
            f"--resamples is {resamples}; give at least {_FEWEST_RESAMPLES}"
        )
    if seed < 0:
        raise InputError(f"--seed is {seed}; give a number from 0")
    for path in (folder / name for folder in folders for name in _KEPT):
        if path.is_symlink():  # its copy would hold a file from outside the run
            raise InputError(f"{path} is a link; replace it by the file itself")
    own_files.check_study(output, _WRITTEN, _was_begun(output))
    grouped = grouping.group([run_folder.open_run(path) for path in folders])
    statistics = comparison.compare(
        grouped, policy=policy, resamples=resamples, seed=seed
    )
    for model, described in zip(grouped, statistics["models"], strict=True):
        described["predicted_dice"] = prediction_errors.of_runs(model.runs)
    # All that may fail comes before anything is written.
    copies = _copies(grouped, output)
    drawn = _draw_figures(statistics, grouped, policy)
    files.write_text(output / _BEGUN, "")
    (output / "statistics.json").unlink(missing_ok=True)
    written = _write_tables(statistics, output)
    for name, figure in drawn.items():
        figures.save(figure, output / f"{name}.png")
    if drawn["figure1"] is None:
        print("figure1.png not drawn: the runs have no panels/ of common test cases")
    for path, text in copies.items():
        _write_or_remove(path, text)
    shown = [one for listed in written.values() for one in listed]
    report.write_study_report(output, shown)
    # Written last, so that its presence shows that all files were written.
    files.write_json(output / "statistics.json", statistics)
    (output / _BEGUN).unlink()
    for name in _NAMES.values():
        if written[name]:
            print(tables.markdown(written[name]))
    for claim in statistics["claims"]:
        if claim["verdict"] != "not tested":
            print(claim["sentence"])
    print(
        f"\n{statistics['scope']}\nwritten: {output}, report: {output / 'report.html'}"
    )


def _was_begun(output: Path) -> bool:
    """Tells whether a comparison wrote, or began to write, into a folder."""
    return any((output / name).exists() for name in ("statistics.json", _BEGUN))


def _write_tables(statistics: dict[str, Any], output: Path) -> dict[str, list[Table]]:
    """Writes the tables and returns them by the name of their file.

    A table that these runs do not have is removed, as a rest of an earlier comparison.
    """
    present = {model["target"] for model in statistics["models"]}
    written = {
        **{
            name: [paper_tables.paper_table(statistics, target)]
            if target in present
            else []
            for target, name in _NAMES.items()
        },
        "claims": [claims.claims_table(statistics)],
        "measures": [appraisal.measures_table(statistics)],
        "factors": factors.factors_tables(statistics),
        "quality": [prediction_errors.table(statistics["models"])],
        "voxels": voxel_agreement.voxel_tables(statistics),
    }
    for name, listed in written.items():
        _write_or_remove(output / f"{name}.md", listed and tables.markdown(listed))
    for target, name in _NAMES.items():
        text = paper_tables.csv_text(statistics, target) if written[name] else ""
        _write_or_remove(output / f"{name}.csv", text)
    return written


def _write_or_remove(path: Path, text: str | list) -> None:
    if text:
        files.write_text(path, str(text))
    else:
        path.unlink(missing_ok=True)


def _draw_figures(
    statistics: dict[str, Any], grouped: Sequence[Model], policy: str
) -> dict[str, Figure | None]:
    """Returns the figures by the name of their file; None where there is none."""
    # Figure 1 has room for the paper's models only; it shows ensembles only where
    # there are no single networks.
    single = [model for model in grouped if not model.is_ensemble] or grouped
    rows_of = {
        charts.title_of(model.name, [run.seeds_text for run in model.runs]): (
            run_folder.with_empty_cases(model.runs[0].rows, policy)
        )
        for model in grouped
    }
    return {
        "figure1": figures.figure1_of_models(single),
        "figure2": charts.figure2(rows_of),
        "referral": charts.referral_figure(statistics),
        "reliability": charts.reliability_figure(statistics),
        "factors": factors.factors_figure(statistics),
    }


def _copies(grouped: Sequence[Model], output: Path) -> dict[Path, str]:
    """Returns the text of each file to keep in OUTPUT/runs/RUN; "" for a missing one.

    Raises InputError for a file that is no text, or a folder that is itself a run: it
    holds more than copies do, or no comparison was begun that could have copied it.
    """
    folder, replaced = output / "runs", _KEPT if _was_begun(output) else ()
    runs = [run for model in grouped for run in model.runs]
    paths = [part.path.resolve() for run in runs for part in run.parts]
    # Runs that are copies in this folder already stay as they are.
    taken = {path.name.casefold() for path in paths if path.parent == folder.resolve()}
    copies = {}
    for path in (path for path in paths if path.parent != folder.resolve()):
        names = [path.name, *(f"{path.name}-{n}" for n in range(2, len(paths) + 2))]
        # Some file systems do not distinguish Run from run.
        kept = next(name for name in names if name.casefold() not in taken)
        taken.add(kept.casefold())
        there = folder / kept
        if there.is_dir() and (foreign := {*os.listdir(there)} - {*replaced}):
            told = min(foreign, key=lambda name: (name in _KEPT, name))
            raise InputError(
                f"{there} holds {told} and would be overwritten by a copy of "
                f"{path}; name another --output"
            )
        for name in _KEPT:
            copies[there / name] = _text(path / name)
    return copies


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8") if path.is_file() else ""
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text in UTF-8; repair it") from None


def _run(arguments: argparse.Namespace) -> None:
    compare(
        arguments.runs,
        arguments.output,
        policy=arguments.empty_cases,
        resamples=arguments.resamples,
        seed=arguments.seed,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 and one line when the input is wrong."""
    parser = Parser(
        "unc_jax.compare",
        "Writes tables, figures and statistics of several evaluated runs.",
        example="runs/liver_large_wcc runs/liver_large_dice --output results",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_output()
    parser.add_argument(
        "--empty-cases",
        choices=run_folder.EMPTY_CASES,
        default="exclude",
        help="exclude values that an empty mask leaves undefined, or count them as 0",
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=RESAMPLES,
        help="number of bootstrap resamples (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help="seed of the bootstrap (%(default)s)"
    )
    run_command(_run, parser, argv, interrupted=BEGINS_ANEW)


if __name__ == "__main__":
    main()
