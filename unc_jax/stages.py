"""Stages of a run behind its preparation: train, evaluate. Only files connect them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unc_jax import preparation, runtime
from unc_jax.config import Config, flat_config, stored_config
from unc_jax.data import dataset, files
from unc_jax.data.cohort import Cohort
from unc_jax.errors import InputError
from unc_jax.review import novelty, prepare_scan, report, verdict
from unc_jax.segmentation.fit import fit
from unc_jax.segmentation.models import precision_of
from unc_jax.segmentation.progress import Progress
from unc_jax.segmentation.resume import check_resumable
from unc_jax.study import (
    appraisal,
    cases_table,
    charts,
    delivered_mask,
    evaluate,
    figures,
    members,
    paper_tables,
    partial_tables,
    split_half,
    tables,
    voxel_agreement,
)
from unc_jax.study.predictor import chosen_checkpoints, load_predictor
from unc_jax.study.validation import build_validation
from unc_jax.uncertainty.prediction import Prediction


def train(config: Config, prepared: Cohort, workdir: Path) -> None:
    """Trains to config.train.steps, resuming from the latest checkpoint."""
    fit(config, prepared, workdir, build_validation(config, prepared))


def check_run(
    config: Config,
    prepared: Cohort,
    workdir: Path,
    *,
    training: bool,
    evaluating: bool,
    replace: bool,
) -> None:
    """Raises InputError if a stage would conflict with the run folder; only reads.

    training, evaluating: stages that will run. replace: old rows may be removed.
    """
    step = None
    if not config.evaluate.members:
        # Another split would evaluate the network on cases that it was trained on.
        cohort = prepared.fingerprint
        step = check_resumable(config, cohort, workdir, to_train=training)
    elif training:
        raise InputError(
            "an ensemble is not trained: train its members, then run this command with "
            "--stage evaluate"
        )
    members.seeds_of(config, prepared.fingerprint)  # raises for unfit members
    _check_shapes(config, prepared.images.shape[1:])
    if replace:
        return
    if training and step != config.train.steps and partial_tables.has_rows(workdir):
        raise InputError(
            f"{workdir} has rows made with the weights of step {step}, but training "
            f"would continue to step {config.train.steps}; choose another --workdir, "
            "or replace the rows by --replace-rows"
        )
    if not evaluating:
        return
    chosen = chosen_checkpoints(config, workdir)
    partial_tables.check_rows(workdir, made_with(config, prepared, **chosen))


def _check_shapes(config: Config, volume: tuple[int, ...]) -> None:
    """Raises InputError for a patch or window that a volume of shape "auto" lacks."""
    for name in ("train.patch_shape", "evaluate.window_shape"):
        group, field = name.split(".")
        shape = tuple(config[group][field])
        if any(one > side for one, side in zip(shape, volume, strict=False)):
            raise InputError(
                f"{name} {shape} is larger than the prepared volumes, {volume}; "
                "make it smaller, or give data.shape"
            )


def evaluate_run(
    config: Config, prepared: Cohort, workdir: Path, *, replace: bool = False
) -> str:
    """Evaluates all cases; returns the Markdown table and the verdict on the measures.

    Several processes share the cases; the main one writes the summary, the others
    return "".

    Writes cases.csv, voxels.json, summary.json, table.md, figures/ and the files that
    review needs into `workdir`, predictions/ with evaluate.save_predictions, and the
    config.json of an ensemble.
    Finished cases are not segmented again. Raises InputError for rows made with other
    settings, data or weights; replace: they are replaced instead.
    """
    predictor = load_predictor(config, workdir, prepared.images.shape[1:])
    root = Path(runtime.on_main(lambda: str(preparation.data_root(config))))
    labels = {case.id: case.label for case in dataset.read_task(root).training}
    values = prepared.target_labels
    assess = voxel_agreement.build_assessment(
        prepared,
        predictor.single,
        raters_of=root,
        values=values,
        folder=workdir / "voxels",
    )

    def on_prediction(index: int, prediction: Prediction) -> None:
        assess(index, prediction)
        if config.evaluate.save_predictions:
            delivered_mask.write_maps(
                workdir / "predictions", prepared, index, prediction
            )

    rows_made_with = made_with(config, prepared, predictor.steps, predictor.digests)
    rows = evaluate.evaluate_cases(
        predictor.predict,
        prepared,
        workdir,
        samples=predictor.samples,
        made_with=rows_made_with,
        replace=replace,
        reference_of=lambda case: delivered_mask.read_reference(
            labels.get(case), values
        ),
        on_case=_on_row(prepared),
        on_prediction=on_prediction,
    )
    if not runtime.is_main():
        return ""
    if config.evaluate.members:  # it trains nothing, and may replace other rows
        files.write_json(workdir / "config.json", stored_config(config))
    summed = voxel_agreement.collect(workdir / "voxels", prepared.split.test)
    if summed is not None:
        files.write_json(workdir / "voxels.json", summed)
    prepare_scan.store_preparation(workdir, prepared, rows)
    novelty.store_features(workdir, prepared, predictor.features, rows_made_with)
    said = verdict.store(workdir, rows)
    return f"{summarise(config, rows, workdir)}\n\n{said}"


def summarise(config: Config, rows: list[cases_table.Row], workdir: Path) -> str:
    """Writes summary.json, figures, table.md and report.html.

    Returns the table and sentences on the reliability of the measures.
    """
    summary = appraisal.summarise(rows, resamples=config.evaluate.bootstrap)
    files.write_json(workdir / "summary.json", summary)
    slices = figures.figure1(rows, workdir / "panels")
    figures.save(slices, workdir / "figures" / "figure1.png")
    figures.save(charts.figure2({"": rows}), workdir / "figures" / "figure2.png")
    table = paper_tables.run_table(
        summary,
        loss=config.loss.name,
        patch=config.train.patch_shape,
        shape=config.data.shape,
        target=config.data.target,
        name=workdir.name,
    )
    text = tables.markdown([table])
    files.write_text(workdir / "table.md", text)
    report.write_run_report(workdir, table)
    test = summary.get("test")
    said = split_half.sentences(test["measures"]) if test else []
    return "\n".join([text, *said]).rstrip("\n")


def made_with(
    config: Config, prepared: Cohort, steps: Sequence[int], checkpoints: Sequence[str]
) -> dict[str, Any]:
    """Returns the content of evaluation.json: all that the rows of cases.csv depend on.

    It includes evaluate.save_predictions, because finished cases are not segmented
    again and would lack their files in predictions/.

    steps, checkpoints: step and SHA-256 of the checkpoint of each network.

    Raises InputError for unfit members of an ensemble (`members.seeds_of`).
    """
    names = ("seed", "model.", "evaluate.", "train.patch_shape")
    settings = {
        name: value
        for name, value in flat_config(config).items()
        if name.startswith(names) and name not in partial_tables.WITHOUT_EFFECT
    }
    return {
        "cohort": prepared.fingerprint,
        "settings": settings,
        "seeds": members.seeds_of(config, prepared.fingerprint),
        "steps": list(steps),
        "checkpoints": list(checkpoints),
        "precision": precision_of(config),
    }


def _on_row(prepared: Cohort) -> Callable[[int, int, cases_table.Row], None]:
    progress = Progress("evaluate", len(prepared.ids), "case")

    def on_row(done: int, total: int, row: cases_table.Row) -> None:
        score = "undefined" if row["dice"] is None else f"{row['dice']:.3f}"
        progress(done, f"{row['case']} Dice {score}")

    return on_row
