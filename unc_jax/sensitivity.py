"""Evaluates how the correlations of a trained run depend on its evaluation settings.

python -m unc_jax.sensitivity RUN --output DIR [--members RUN RUN ...]
    [--only GROUP ...] [--replace-rows]

Evaluates the test cases of RUN again, changing one setting at a time: mask scope,
number of samples, dropout rate or kind, overlap or window, or the source of samples
(flips, or an ensemble of --members, which are runs with other seeds). Writes
DIR/sensitivity.{md,json}, DIR/{samples,windows}.png and DIR/VARIANT/cases.csv. Finished
cases are not evaluated again. A DIR with files of these names that this command did not
write is refused. Exit codes: 0 done, 2 wrong input,
4 no case of a variant could be segmented.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unc_jax import preparation, stages
from unc_jax.check_config import check_config
from unc_jax.cli import SOME_FAILED, Parser, run_command
from unc_jax.config import Config, flat_config
from unc_jax.data import files
from unc_jax.data.cohort import Cohort
from unc_jax.errors import InputError, NoUsableCase, printable
from unc_jax.review import own_files
from unc_jax.segmentation.progress import Progress
from unc_jax.study import (
    evaluate,
    figures,
    run_folder,
    tables,
    variant_figures,
    variants,
)
from unc_jax.study.cases_table import Row
from unc_jax.study.predictor import load_predictor, window_shape
from unc_jax.study.variants import Variant

_WRITTEN = ("sensitivity.md", "sensitivity.json", "samples.png", "windows.png")
_BEGUN = ".sensitivity-begun"  # there while these files are being written


def run(arguments: argparse.Namespace) -> int:
    """Evaluates every variant and writes the table; returns the exit code."""
    output = arguments.output
    own_files.check_study(output, _WRITTEN, _was_begun(output))
    config = run_folder.read_config(arguments.run)
    members = [str(folder) for folder in arguments.members]
    listed = variants.variants(flat_config(config), members)
    groups = list(dict.fromkeys(one.group for one in listed if one.fields))
    wanted = arguments.only or groups
    if unknown := [name for name in wanted if name not in groups]:
        raise InputError(
            f"--only {unknown[0]!r}: no such group; there are {', '.join(groups)}"
        )
    listed = [one for one in listed if one.group in wanted or not one.fields]
    prepared = preparation.prepare(config)
    volume = prepared.images.shape[1:]
    listed = distinct(listed, config, volume)
    with files.hold(output, "unc_jax.sensitivity"):
        rows_of, failed = [], []
        for one in listed:
            try:
                rows = evaluated(
                    one, config, prepared, arguments.run, output, arguments.replace
                )
            except NoUsableCase as error:
                if not one.fields:  # nothing to compare with
                    raise
                failed.append(f"{one.group} {one.name} left out: {error}")
                continue
            rows_of.append((one, rows))
        base = rows_of[0][1]
        described = [
            (one, {**variants.describe(rows, base), "work": _work(one, config, volume)})
            for one, rows in rows_of
        ]
        files.write_text(output / _BEGUN, "")
        text = tables.markdown([variants.table(arguments.run.name, described)])
        files.write_text(output / "sensitivity.md", text)
        samples = variant_figures.samples_figure(described)
        figures.save(samples, output / "samples.png")
        windows = variant_figures.windows_figure(described)
        figures.save(windows, output / "windows.png")
        content = [{**one._asdict(), **numbers} for one, numbers in described]
        files.write_json(output / "sensitivity.json", content)
        (output / _BEGUN).unlink()
    print(text)
    for line in failed:
        print(printable(line), file=sys.stderr)
    print(f"written: {output}")
    return SOME_FAILED if failed else 0


def _was_begun(output: Path) -> bool:
    """Tells whether this command wrote, or began to write, its files there."""
    if (output / _BEGUN).exists():
        return True
    try:
        content = files.read_json(output / "sensitivity.json")
    except InputError:
        return False
    described = content if isinstance(content, list) else []
    fields = {*Variant._fields}
    return bool(described) and all(
        isinstance(one, dict) and fields <= one.keys() for one in described
    )


def distinct(
    listed: Sequence[Variant], config: Config, volume: tuple[int, ...]
) -> list[Variant]:
    """Leaves out variants with the samples of an earlier one.

    A window of the patch's size is the evaluated one where the patch spans the plane.
    """
    seen, kept = [], []
    for one in listed:
        changed = with_fields(config, one.fields)
        changed.evaluate.window_shape = window_shape(changed, volume)
        settings = flat_config(changed)
        if settings not in seen:
            seen.append(settings)
            kept.append(one)
    return kept


def evaluated(
    variant: Variant,
    config: Config,
    prepared: Cohort,
    workdir: Path,
    output: Path,
    replace: bool = False,
) -> list[Row]:
    """Returns the rows of the test cases, evaluated with the variant's settings."""
    changed = with_fields(config, variant.fields)
    same = changed.evaluate.members == config.evaluate.members
    steps = run_folder.evaluated_steps(workdir) if same else []
    shape = prepared.images.shape[1:]
    predictor = load_predictor(changed, workdir, shape, steps=steps)
    progress = Progress(
        " ".join(filter(None, [variant.group, variant.name])),
        len(prepared.split.test),
        "case",
    )
    return evaluate.evaluate_cases(
        predictor.predict,
        prepared,
        output / variant.folder,
        samples=predictor.samples,
        made_with=stages.made_with(
            changed, prepared, predictor.steps, predictor.digests
        ),
        replace=replace,
        splits=("test",),
        on_case=lambda done, total, row: progress(done, str(row["case"])),
    )


def _work(variant: Variant, config: Config, volume: tuple[int, ...]) -> float:
    changed = with_fields(config, variant.fields)
    window = window_shape(changed, volume)
    return variants.work(volume, window, changed.evaluate.overlap)


def with_fields(config: Config, fields: dict[str, Any]) -> Config:
    """Returns a copy of the config with these fields, checked."""
    changed = config.copy_and_resolve_references()
    for name, value in fields.items():
        group, field = name.split(".")
        changed[group][field] = value
    check_config(changed)
    return changed


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 and one line on wrong input."""
    parser = Parser(
        "unc_jax.sensitivity",
        "Evaluates the test cases of a run again, changing one setting at a time.",
        example="runs/liver --output sensitivity --only 'samples N'",
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_output()
    parser.add_argument(
        "--members",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs that differ only in the seed, also evaluated as an ensemble",
    )
    parser.add_argument(
        "--replace-rows",
        dest="replace",
        action="store_true",
        help="replace rows that were made with other settings, data or weights",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="GROUP",
        help="groups of settings to change, e.g. 'samples N'; all if not given",
    )
    run_command(run, parser, argv)


if __name__ == "__main__":
    main()
