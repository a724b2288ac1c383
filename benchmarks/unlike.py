"""Detection of scans of another kind by the features of a run's network.

    python benchmarks/unlike.py RUN TASK DATA

RUN: evaluated run of configs/demo.py; TASK: folder of its synthetic scans; DATA: folder
of real scans in Decathlon layout, Liver_3mm (CT) and Liver_MR. Prints a table: of the
run's own test cases the share that is flagged is the rate of false alarms.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.data import nifti
from unc_jax.data.geometry import Geometry
from unc_jax.errors import InputError
from unc_jax.review import novelty, prepare_scan, scan_warnings
from unc_jax.study import run_folder
from unc_jax.study.predictor import load_predictor
from unc_jax.study.tables import Table, markdown

Array = np.ndarray


def changed(image: Array) -> Iterator[tuple[str, Array]]:
    """Yields a synthetic CT (x, y, z) in HU, and what would be another kind of it."""
    random = np.random.default_rng(0)
    yield "synthetic, as in training", image
    for noise in (20, 60):
        noisy = image + random.normal(0, noise, image.shape).astype(np.float32)
        yield f"synthetic, noise of {noise} HU more", noisy
    yield "synthetic, contrast x 1.5", image * 1.5
    yield "synthetic, 60 HU brighter", image + 60
    yield "synthetic, blurred by 2 voxels", ndimage.gaussian_filter(image, 2)
    yield "synthetic, every fourth slice", image[:, :, ::4]
    yield "synthetic, upside down", image[:, :, ::-1]
    yield from thirds("synthetic", image)


def thirds(kind: str, image: Array) -> Iterator[tuple[str, Array]]:
    """Yields the ends of a scan with hardly any liver, towards head and legs."""
    size = image.shape[2] // 3
    yield f"{kind}, upper third", image[:, :, -size:]
    yield f"{kind}, lower third", image[:, :, :size]


def scans(run: Path, task: Path, data: Path) -> Iterator[tuple[str, Array, Geometry]]:
    """Yields kind, voxels and grid of every scan."""
    with open(run / "cases.csv", encoding="utf-8") as file:
        test = [row["case"] for row in csv.DictReader(file) if row["split"] == "test"]
    for case in test:
        scan = nifti.read(task / "imagesTr" / f"{case}.nii.gz")
        for kind, image in changed(np.asarray(scan.array, np.float32)):
            yield kind, image, scan.geometry
    for path in sorted(data.glob("Liver_3mm/images*/*.nii.gz")):
        scan = nifti.read(path)
        yield "real CT", scan.array, scan.geometry
        for kind, image in thirds("real CT", np.asarray(scan.array)):
            yield kind, image, scan.geometry
    for path in sorted(data.glob("Liver_MR/imagesTr/*.nii.gz")):
        scan = nifti.read(path)
        yield "real MR", scan.array, scan.geometry


def judged(run: Path, task: Path, data: Path) -> dict[str, list[tuple[bool, bool]]]:
    """Returns per kind, of each scan: unlike by features, unlike by intensities."""
    opened = run_folder.open_run(run)
    recipe, known = prepare_scan.preparation_of(opened), novelty.of_run(opened)
    if known is None:
        raise InputError(f"{run} has no features; evaluate it again")
    predictor = load_predictor(run_folder.read_config(run), run, recipe.shape)
    found: dict[str, list[tuple[bool, bool]]] = {}
    for kind, image, geometry in scans(run, task, data):
        prepared = prepare_scan.prepare_scan(np.asfortranarray(image), geometry, recipe)
        far = novelty.is_novel(known, predictor.features(prepared.image))
        odd = any(scan_warnings.of_intensities(image, recipe))
        found.setdefault(kind, []).append((far, odd))
    return found


if __name__ == "__main__":
    rows = []
    for kind, flags in judged(*map(Path, sys.argv[1:])).items():
        each = np.array(flags)
        counts = [*each.sum(axis=0), each.any(axis=1).sum()]
        rows.append([kind, str(len(each)), *map(str, counts)])
    print(markdown([Table("", ("scans", "n", "features", "intensities", "any"), rows)]))
