"""Preparation of a run's data: its folder, its faults, its split, its cohort."""

from collections.abc import Callable
from pathlib import Path

from absl import logging

from unc_jax.config import Config
from unc_jax.data import cohort, dataset, files, label_names, split
from unc_jax.data.cohort import Cohort
from unc_jax.data.phantom import draw_cohort
from unc_jax.data.prepare_case import Recipe
from unc_jax.errors import InputError, counted, printable
from unc_jax.segmentation.progress import Progress

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
        files.expanded(data.prepared),
        recipe._replace(liver_labels=target.liver, tumor_labels=target.tumor),
        on_case=_progress("prepare", len(ids)),
    )


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
    root = files.expanded(data.prepared) / name
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
    problems = dataset.verify_once(task, files.expanded(config.data.prepared), progress)
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


def _progress(name: str, total: int) -> Callable[[int, int], None]:
    progress = Progress(name, total, "case")
    return lambda done, _: progress(done)
