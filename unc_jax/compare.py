"""Tables 1 and 2, Figures 1 and 2 and all statistics of several finished runs.

python -m unc_jax.compare RUN [RUN ...] --output results [--empty-cases exclude|zero]

Needs RUN/config.json and RUN/cases.csv; Figure 1 also RUN/panels, and calibration of
voxels RUN/voxels.json. What the numbers were computed from is copied to
OUTPUT/runs/NAME, so that anyone can compute them again.
"""

import argparse
import sys
from pathlib import Path

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import markup, report
from unc_jax.study import (
    comparison,
    measure_table,
    models,
    paper_figures,
    paper_tables,
    run_folder,
    voxel_report,
)

_USER_ERROR = 2
# Of a run, small enough for a repository.
_KEPT = ("config.json", "cases.csv", "evaluation.json", "voxels.json", "metrics.jsonl")
# The smallest p is 2 / resamples; corrected for all claims it has to get below 0.05.
_FEWEST_RESAMPLES = 1000


def compare(
    folders: list[Path], output: Path, *, policy: str, resamples: int, seed: int
) -> None:
    """Reads and checks all runs, then writes everything under `output`."""
    if resamples < _FEWEST_RESAMPLES:
        raise InputError(f"--resamples is {resamples}; give at least 1000")
    grouped = models.group(run_folder.open_comparable(folders))
    statistics = comparison.compare(
        grouped,
        policy=policy,
        resamples=comparison.Resamples(resamples, seed),
    )
    _write(statistics, grouped, output, policy)
    for target in _targets(grouped):
        print(paper_tables.markdown(statistics, target))
    for claim in statistics["claims"]:
        if claim["verdict"] != "not tested":
            print(claim["sentence"])
    print(
        f"\n{statistics['scope']}\nwritten: {output}, report: {output / 'report.html'}"
    )


def _write(
    statistics: dict, grouped: list[models.Model], output: Path, policy: str
) -> None:
    for target, name in (("liver", "table1"), ("tumor", "table2")):
        if target not in _targets(grouped):
            # A table of an earlier comparison would not belong to these runs.
            for suffix in (".md", ".csv"):
                (output / name).with_suffix(suffix).unlink(missing_ok=True)
            continue
        files.write_text(
            output / f"{name}.md", paper_tables.markdown(statistics, target)
        )
        files.write_text(
            output / f"{name}.csv", paper_tables.csv_text(statistics, target)
        )
    files.write_text(output / "claims.md", paper_tables.claims_markdown(statistics))
    files.write_text(output / "measures.md", measure_table.markdown(statistics))
    drawn = paper_figures.figure1(grouped, output / "figure1.png")
    if drawn is None:
        print("figure1.png not drawn: the runs have no panels/ of common test cases")
    paper_figures.figure2(grouped, output / "figure2.png", policy=policy)
    paper_figures.referral_figure(statistics, output / "referral.png")
    _write_voxels(statistics, output)
    _keep_runs(grouped, output / "runs")
    report.write_study_report(output, markup.sections(output))
    # Last, so that its presence says that all of it was written.
    files.write_json(output / "statistics.json", statistics)


def _write_voxels(statistics: dict, output: Path) -> None:
    table, figure = output / "voxels.md", output / "reliability.png"
    if all(model["voxels"] is None for model in statistics["models"]):
        table.unlink(missing_ok=True)
        figure.unlink(missing_ok=True)
        return
    files.write_text(table, voxel_report.markdown(statistics))
    voxel_report.reliability_figure(statistics, figure)


def _keep_runs(grouped: list[models.Model], folder: Path) -> None:
    for run in (run for model in grouped for run in model.runs):
        kept = folder / run.path.resolve().name
        if kept.resolve() == run.path.resolve():  # these are the copies
            continue
        for name in _KEPT:
            if (run.path / name).exists():
                files.write_text(kept / name, (run.path / name).read_text("utf-8"))


def _targets(grouped: list[models.Model]) -> list[str]:
    present = {model.target for model in grouped}
    return [target for target in run_folder.TARGETS if target in present]


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m unc_jax.compare")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--empty-cases",
        choices=run_folder.EMPTY_CASES,
        default="exclude",
        help="what an empty mask leaves undefined is left out, or counts as 0",
    )
    parser.add_argument("--resamples", type=int, default=5000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line when the input is wrong."""
    options = _arguments(sys.argv[1:] if argv is None else argv)
    try:
        compare(
            options.runs,
            options.output,
            policy=options.empty_cases,
            resamples=options.resamples,
            seed=options.seed,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USER_ERROR
    except OSError as error:
        print(f"error: cannot write {options.output}: {error}", file=sys.stderr)
        return _USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
