"""Novelty of a scan: its distance from the cases that a run was trained on.

The distance is that to the nearest training case, between pooled features of the
network's bottleneck, reduced and whitened by PCA (Woodland et al., MELBA 2024). If it
exceeds the distances of all validation cases, and of every training case from the other
ones, the bound of Dice is not calibrated for the scan. RUN/features.json holds the
features of training and validation cases.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data import files
from unc_jax.data.cohort import Cohort, read_image
from unc_jax.data.parallel import in_order
from unc_jax.errors import InputError
from unc_jax.study.run_folder import RunFolder


class Novelty(NamedTuple):
    """Training cases as whitened points, and the largest distance of a similar case.

    mean: mean features (c,); axes: whitening projection (d, c); points: the projected
    training cases (n, d), of variance 1 along each axis; limit: largest distance of a
    validation case from the nearest training case, or of a training case from the
    nearest other one.
    """

    mean: np.ndarray
    axes: np.ndarray
    points: np.ndarray
    limit: float


def fit(training: np.ndarray, held_out: np.ndarray) -> Novelty:
    """Fits projection and limit to features (n, c) and (m, c), n >= 2, m >= 1."""
    mean, cases = training.mean(axis=0), len(training)
    _, sizes, axes = np.linalg.svd(training - mean, full_matrices=False)
    # Half as many axes as cases (benchmarks/results/unlike.md), without axes whose
    # variance is only rounding.
    kept = min(cases // 2, np.count_nonzero(sizes > 1e-6 * sizes[0]))
    axes = axes[:kept] / sizes[:kept, None] * np.sqrt(cases)
    found = Novelty(mean, axes, (training - mean) @ axes.T, 0.0)
    between = np.linalg.norm(found.points[:, None] - found.points, axis=-1)
    np.fill_diagonal(between, np.inf)
    seen = [*distances(found, held_out), *between.min(axis=1)]
    return found._replace(limit=float(max(seen)))


def distances(novelty: Novelty, features: np.ndarray) -> np.ndarray:
    """Returns the distance (m,) of features (m, c) to their nearest training case."""
    places = (features - novelty.mean) @ novelty.axes.T
    return np.linalg.norm(places[:, None] - novelty.points, axis=-1).min(axis=1)


def is_novel(novelty: Novelty, features: np.ndarray) -> bool:
    """Tells whether a scan, by its features (c,), is unlike the training cases."""
    return bool(distances(novelty, features[None])[0] > novelty.limit)


def store_features(
    workdir: Path,
    cohort: Cohort,
    features_of: Callable[[np.ndarray], np.ndarray],
    made_with: dict[str, Any],
) -> None:
    """Writes RUN/features.json, unless it exists with an equal `made_with`.

    features_of: maps a prepared image, float32 (x, y, z), to features (c,).
    """
    path = workdir / "features.json"
    if path.exists() and files.read_object(path).get("made_with") == made_with:
        return
    content: dict[str, Any] = {"made_with": made_with}

    read = functools.partial(read_image, cohort)
    with ThreadPoolExecutor(1) as pool:  # reads while the device computes
        for split in ("train", "validation"):
            images = in_order(pool, read, getattr(cohort.split, split), ahead=1)
            content[split] = [features_of(image).tolist() for image in images]
    files.write_json(path, content)


def of_run(run: RunFolder) -> Novelty | None:
    """Fits the novelty of a run; returns None for a run without enough features."""
    if run.features is None:
        return None
    try:
        training, held_out = (
            np.array(run.features[split], float) for split in ("train", "validation")
        )
        if len(training) < 2 or not len(held_out) or not training.size:
            return None
        if not np.isfinite(training).all() or not np.isfinite(held_out).all():
            raise ValueError
        return fit(training, held_out)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{run.path / 'features.json'} holds no features; delete it and run "
            "--stage evaluate again"
        ) from None
