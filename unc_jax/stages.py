"""Stages of a run: prepare, train, evaluate. They communicate only through files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from unc_jax import runtime
from unc_jax.config import Config, flat_config
from unc_jax.data import cohort, dataset, files, label_names, split
from unc_jax.data.cohort import Cohort
from unc_jax.data.phantom import draw_cohort
from unc_jax.data.prepare_case import Recipe
from unc_jax.errors import InputError, counted, printable
from unc_jax.review import novelty, prepare_scan, report, verdict
from unc_jax.segmentation.fit import fit
from unc_jax.segmentation.progress import Progress
from unc_jax.segmentation.resume import check_resumable
from unc_jax.study import (
    appraisal,
    cases_table,
    charts,
    delivered,
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

_ORIGIN = (
    "the paper's set is Task03_Liver of the Medical Segmentation Decathlon "
    "(medicaldecathlon.com, 27 GB); unpack it there, or name its folder by "
    "--config.data.root=FOLDER, or run on a synthetic cohort by "
    "--config.data.root=phantom"
)


def prepare(config: Config) -> Cohort:
    """Verifies, splits and prepares `config.data`; a finished cohort is only opened.

    Raises InputError with the full list of problems before anything is prepared,
    unless data.skip_bad_cases leaves the refused cases out.
    """
    data = config.data
    # Scans without labels are not used, so their faults must not stop the preparation.
    task = dataset.without_test(dataset.read_task(data_root(config)))
    recipe = Recipe(**{name: data[name] for name in Recipe._fields})
    target = label_names.find_target(
        task.names,
        data.target,
        task.root / "dataset.json",
        liver=data.liver_labels,
        tumor=data.tumor_labels,
    )
    print(printable(target.words))
    task = _without_refused(task, config)
    ids = [case.id for case in task.training]
    chosen = split.choose_split(
        ids,
        data.split_file,
        seed=data.split_seed,
        shares=data.split_shares,
        fold=data.fold,
        folds=data.folds,
    )
    return cohort.prepare(
        task,
        chosen,
        Path(data.prepared),
        recipe._replace(liver_labels=target.liver, tumor_labels=target.tumor),
        on_case=_progress("prepare", len(ids)),
    )


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
    review needs into `workdir`, and predictions/ with evaluate.save_predictions.
    Finished cases are not segmented again. Raises InputError for rows made with other
    settings, data or weights; replace: they are replaced instead.
    """
    predictor = load_predictor(config, workdir, prepared.images.shape[1:])
    root = Path(runtime.on_main(lambda: str(data_root(config))))
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
            delivered.write_maps(workdir / "predictions", prepared, index, prediction)

    rows_made_with = made_with(config, prepared, predictor.steps, predictor.digests)
    rows = evaluate.evaluate_cases(
        predictor.predict,
        prepared,
        workdir,
        samples=predictor.samples,
        made_with=rows_made_with,
        replace=replace,
        reference_of=lambda case: delivered.read_reference(labels.get(case), values),
        on_case=_on_row(prepared),
        on_prediction=on_prediction,
    )
    if not runtime.is_main():
        return ""
    summed = voxel_agreement.collect(workdir / "voxels", prepared.split.test)
    if summed is not None:
        files.write_json(workdir / "voxels.json", summed)
    prepare_scan.store_preparation(workdir, config, prepared, rows)
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
        target=config.data.target,
        name=workdir.name,
    )
    text = tables.markdown([table])
    files.write_text(workdir / "table.md", text)
    report.write_run_report(workdir, table)
    test = summary.get("test")
    said = split_half.sentences(test["measures"]) if test else []
    return "\n".join([text, *said]).rstrip("\n")


def data_root(config: Config) -> Path:
    """Returns the folder of the data set; for "phantom" draws the synthetic cohort.

    Raises InputError, which says where to get the data, when the folder is missing.
    """
    data = config.data
    if data.root != "phantom":
        root = files.expanded(data.root)
        if not root.is_dir():
            raise InputError(f"no data at {root}: {_ORIGIN}")
        return root
    size = "x".join(map(str, data.phantom_size))
    name = f"phantom_{data.phantom_cases}_seed{data.phantom_seed}_{size}"
    root = Path(data.prepared) / name
    draw_cohort.write_cohort(
        root,
        cases=data.phantom_cases,
        seed=data.phantom_seed,
        size=data.phantom_size,
        on_case=_progress("draw", data.phantom_cases),
    )
    return root


def _without_refused(task: dataset.Task, config: Config) -> dataset.Task:
    """Returns the task without its refused cases, if data.skip_bad_cases says so."""
    progress = _progress("verify", len(task.training))
    problems = dataset.verify_once(task, Path(config.data.prepared), progress)
    errors = [p.message for p in problems if p.severity == "error"]
    bad = {problem.case for problem in problems if problem.severity == "error"}
    for problem in problems:
        if problem.case not in bad or config.data.skip_bad_cases:
            logging.warning("%s: %s", problem.case, problem.message)
    if bad and not config.data.skip_bad_cases:
        raise InputError(
            f"refused: {len(bad)} of {counted(len(task.training), 'case')}: "
            f"{'; '.join(errors)}; repair them, or leave them out by "
            "--config.data.skip_bad_cases=True"
        )
    return task._replace(training=tuple(c for c in task.training if c.id not in bad))


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
    }


def _progress(name: str, total: int) -> Callable[[int, int], None]:
    progress = Progress(name, total, "case")
    return lambda done, _: progress(done)


def _on_row(prepared: Cohort) -> Callable[[int, int, cases_table.Row], None]:
    progress = Progress("evaluate", len(prepared.ids), "case")

    def on_row(done: int, total: int, row: cases_table.Row) -> None:
        score = "undefined" if row["dice"] is None else f"{row['dice']:.3f}"
        progress(done, f"{row['case']} Dice {score}")

    return on_row
