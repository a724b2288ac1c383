"""References of segmented scans: Dice and distances of the delivered masks."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unc_jax.data import dataset, label_names, nifti
from unc_jax.data.geometry import same_grid
from unc_jax.errors import InputError
from unc_jax.review.case_files import file_of_case
from unc_jax.review.read_samples import check_labelled, read_labels
from unc_jax.review.scans import Scan
from unc_jax.study import case_columns, cases_table, metrics
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import Row
from unc_jax.study.run_folder import RunFolder

# For runs without these values in preparation.json.
_LABELS = {"liver_labels": (1, 2), "tumor_labels": (2,)}


class References:
    """References of the scans of one command.

    They are CASE.nii.gz of a folder, or the labels of a set with dataset.json. The
    label values are those that the config names; else those of the target's name in
    the dataset.json of the set, or in or above the folder; else those of the run.
    """

    def __init__(self, run: RunFolder, source: Path, folder: Path | None):
        """Finds the references.

        run: gives the label values of its target; source: of the scans; folder:
        --references or None. Raises InputError when the folder does not exist.
        """
        if folder is not None and not folder.is_dir():
            raise InputError(f"--references {folder}: no such folder")
        self._folder = folder
        self._problem = ""
        self.values = _values_of(run)
        self._ignored: tuple[int, ...] = ()
        try:
            if file := _index_of(folder or source):
                names = dataset.read_names(file.parent)
                self._ignored = label_names.ignored(names)
                if not run.config[_field_of(run)]:
                    tumor = run.config.get("data.tumor_labels") or ()
                    found = label_names.find_target(
                        names, run.target, file, tumor=tumor
                    )
                    liver = run.target == "liver"
                    self.values = found.liver if liver else found.tumor
        except InputError as error:
            self._problem = str(error)
        self._of_set: dict[Path, Path] = {}
        if folder is None and (source / "dataset.json").exists():
            training = dataset.read_task(source).training
            self._of_set = {case.image: case.label for case in training if case.label}

    def with_dice(self, row: Row, scan: Scan, mask: Path) -> Row:
        """Returns the row of a scan with the Dice of its mask, if there is a reference.

        A reference that is missing or cannot be compared is a warning of the row.
        """
        if cases_table.is_failed(row):
            return row
        try:
            path = self._path(scan)
            if path is None:
                return row
            if self._problem:
                raise InputError(self._problem)
            known = compare(
                mask,
                path,
                self.values,
                self._ignored,
                strict=self._folder is not None,
            )
        except InputError as error:
            return cases_table.with_warnings(row, f"no Dice: {error}")
        return cases_table.new_row(REVIEW_COLUMNS, **{**row, **known})

    def files(self, scans: Sequence[Scan]) -> list[Path]:
        """Returns the existing files of references of the scans."""
        found = []
        for scan in scans:
            with contextlib.suppress(InputError):
                found.append(self._path(scan))
        return [path for path in found if path]

    def _path(self, scan: Scan) -> Path | None:
        if self._folder is None:
            return self._of_set.get(scan.path)
        named = (file_of_case(self._folder, name) for name in scan.names)
        found = [path for path in named if path]
        if not found:
            raise InputError(f"{self._folder}: no {scan.case}.nii.gz or .nii")
        return found[0]


def _field_of(run: RunFolder) -> str:
    return "data.liver_labels" if run.target == "liver" else "data.tumor_labels"


def _values_of(run: RunFolder) -> tuple[int, ...]:
    field = _field_of(run)
    name = field.removeprefix("data.")
    stored = run.preparation or {}
    return tuple(run.config[field] or stored.get(name) or _LABELS[name])


def _index_of(place: Path) -> Path | None:
    """Returns the dataset.json in a folder or the one above it; None without one."""
    files = [one / "dataset.json" for one in (place, place.parent)]
    return next((file for file in files if file.exists()), None)


def compare(
    mask: Path,
    reference: Path,
    values: Sequence[int],
    ignored: Sequence[int],
    *,
    strict: bool,
) -> dict[str, float]:
    """Returns Dice, distances and reference volume of a written mask.

    Args:
      mask: file of the segmentation.
      reference: file of labels on the same grid.
      values: label values of the structure.
      ignored: label values of voxels that nobody labelled.
      strict: refuse a reference that has other labels but none of these, because it is
        probably of another structure; in a labelled data set a case may lack it.

    Raises:
      InputError: the grids differ, or the reference is refused.
    """
    found, geometry = nifti.read(mask, labels=True)
    labels, there = read_labels(reference)
    if not same_grid(geometry, there):
        raise InputError(f"{reference}: not on the grid of the scan; resample it")
    known = np.flatnonzero(np.bincount(labels.ravel(order="K"))[1:]) + 1
    check_labelled(known.tolist(), ignored, reference)
    if strict and len(known) and not np.isin(known, values).any():
        raise InputError(
            f"{reference}: has the labels {', '.join(map(str, known[:5]))}; the run "
            f"was trained on {', '.join(map(str, values))}"
        )
    truth = np.isin(labels, values)
    return {
        "dice": metrics.dice(found != 0, truth),
        "reference_ml": metrics.volume_ml(truth, geometry.voxel_ml),
        **case_columns.measure_distances(found, truth, geometry.spacing_mm),
    }
