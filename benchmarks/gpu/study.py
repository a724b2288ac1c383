"""A run of the product on the synthetic cohort: prepared, trained, evaluated.

`fields` are those of configs/base.py that differ, by their dotted names.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.peers.contender import Task
from unc_jax import preparation, stages
from unc_jax.config import from_flat
from unc_jax.data.cohort import Cohort
from unc_jax.study import case_columns, metrics
from unc_jax.study.predictor import load_predictor
from unc_jax.uncertainty.measures import THRESHOLD

_MEASURES = ("dice", "d_pw", "cv", "u_labelled")


def prepare(fields: dict[str, Any]) -> Callable[[], int]:
    config = _config(fields)
    return lambda: len(preparation.prepare(config).ids)


def train(fields: dict[str, Any], folder: str) -> Callable[[], dict[str, float]]:
    """Trains to the end; steps a second with compiling, validation and saving."""
    config = _config(fields)
    prepared = preparation.prepare(config)

    def run() -> dict[str, float]:
        started = time.perf_counter()
        stages.train(config, prepared, Path(folder))
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "steps_per_second": config.train.steps / seconds}

    return run


def evaluate(fields: dict[str, Any], folder: str) -> Callable[[], dict[str, Any]]:
    """Evaluates the run and tells what a case took, by the times of its files.

    case_seconds: from the end of the first case to the end of the last, by their
    number: the first compiled. sampling_seconds: of the samples alone, and for the
    share of test cases of one plain pass, before the evaluation began.
    """
    config = _config(fields)
    prepared, workdir = preparation.prepare(config), Path(folder)
    sampling, plain = _alone(config, workdir, prepared)

    def run() -> dict[str, Any]:
        started = time.perf_counter()
        stages.evaluate_run(config, prepared, workdir, replace=True)
        whole = time.perf_counter() - started
        written = [*workdir.glob("panels/*.npz"), *workdir.glob("voxels/*.json")]
        ends: dict[str, float] = {}
        for path in written:
            end = path.stat().st_mtime
            ends[path.stem] = max(end, ends.get(path.stem, end))
        others = len(ends) - 1
        case = (max(ends.values()) - min(ends.values())) / others
        alone = sampling + plain * len(prepared.split.test) / others
        return {
            "case_seconds": case,
            "sampling_seconds": sampling,
            "plain_seconds": plain,
            "wall_over_sampling": case / alone,
            "whole_seconds": whole,
            "cases": len(ends),
        }

    return run


def _alone(config, workdir: Path, prepared: Cohort) -> tuple[float, float]:
    """Seconds of a case's samples and of its plain pass, with nothing else to do."""
    predictor = load_predictor(config, workdir, prepared.images.shape[1:])
    image = np.asarray(prepared.images[0], np.float32)
    sampling = _median_seconds(lambda: predictor.predict(image, 0))
    return sampling, _median_seconds(lambda: predictor.single(image))


def precision(
    fields: dict[str, Any], folder: str, cases: int
) -> Callable[[], dict[str, Any]]:
    """Measures of test cases in both types, and the largest difference of each.

    The samples draw the same masks of dropout, so the type alone differs.
    """
    prepared = preparation.prepare(_config(fields))

    def measured(dtype: str) -> dict[str, list[float]]:
        config = _config({**fields, "model.compute_dtype": dtype})
        predictor = load_predictor(config, Path(folder), prepared.images.shape[1:])
        found: dict[str, list[float]] = {name: [] for name in _MEASURES}
        found["seconds"] = []
        for case in prepared.split.test[:cases]:
            index = prepared.ids.index(case)
            image = np.asarray(prepared.images[index], np.float32)
            started = time.perf_counter()
            prediction = predictor.predict(image, index)
            found["seconds"].append(time.perf_counter() - started)
            numbers = case_columns.measure(prediction, 1.0)
            mask = prediction.mean >= THRESHOLD
            numbers["dice"] = metrics.dice(mask, prepared.labels[index])
            for name in _MEASURES:
                found[name].append(float(numbers[name]))
        return found

    def run() -> dict[str, Any]:
        half, full = measured("bfloat16"), measured("float32")
        apart = {
            name: float(np.max(np.abs(np.subtract(half[name], full[name]))))
            for name in _MEASURES
        }
        return {"bfloat16": half, "float32": full, "largest_difference": apart}

    return run


def predict(
    fields: dict[str, Any], folder: str, path: str, reference: bool
) -> Callable[[], dict[str, Any]]:
    """Predicts a test case with a run's latest weights, in float32.

    With `reference` the answer goes to `path`, otherwise it is compared with it.
    """
    config = _config({**fields, "model.compute_dtype": "float32"})
    prepared = preparation.prepare(config)
    predictor = load_predictor(config, Path(folder), prepared.images.shape[1:])
    index = prepared.ids.index(prepared.split.test[0])
    image = np.asarray(prepared.images[index], np.float32)

    def run() -> dict[str, Any]:
        with jax.default_matmul_precision("highest"):
            found = predictor.single(image), predictor.predict(image, index).mean
        answer = {"digest": predictor.digests[0][:16], "step": predictor.steps[0]}
        if reference:
            np.savez(path, *found)
            return answer
        with np.load(path) as file:
            pairs = list(zip(found, file.values(), strict=True))
        apart = [float(np.max(np.abs(one - other))) for one, other in pairs]
        return {**answer, "plain_pass": apart[0], "mean_of_samples": apart[1]}

    return run


def _config(fields: dict[str, Any]):
    return from_flat(fields, Path("fields of the benchmark"))


def _median_seconds(run: Callable[[], Any], repeat: int = 3) -> float:
    """Times some calls after one that compiles."""
    run()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


TASKS: dict[str, Task] = {
    "prepare": prepare,
    "train_run": train,
    "evaluate_run": evaluate,
    "precision": precision,
    "predict": predict,
}
