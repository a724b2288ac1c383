"""Scans that a user names: files, DICOM series, a Decathlon or nnU-Net set."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from unc_jax.data import dataset, dicom, nifti
from unc_jax.data.nifti import ENDINGS
from unc_jax.errors import InputError


class Scan(NamedTuple):
    """A scan that was found.

    Attributes:
      case: name, safe as a folder's and of this scan alone.
      path: of a NIfTI file, or of the folder of a DICOM series.
      problem: why the scan cannot be taken; "" if it can.
      series: files of the DICOM series; empty for a NIfTI file.
    """

    case: str
    path: Path
    problem: str = ""
    series: tuple[Path, ...] = ()

    def read(self) -> nifti.Scan:
        """Reads voxels and geometry; InputError names the file that is at fault."""
        return dicom.read_series(self.series) if self.series else nifti.read(self.path)

    def stamp(self) -> list[list[int]]:
        """Returns size and time of its files, by which a changed scan is noticed."""
        files = [path.stat() for path in self.series or nifti.files_of(self.path)]
        return [[file.st_size, file.st_mtime_ns] for file in files]

    def digest(self) -> str:
        """Returns the SHA-256 of its files in order; "" where one cannot be read."""
        total = hashlib.sha256()
        try:
            for path in self.series or nifti.files_of(self.path):
                with open(path, "rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            return ""
        return total.hexdigest()


def find_scans(source: Path) -> list[Scan]:
    """Returns all scans of `source`, by name.

    Of a set with dataset.json both training and test images are taken. Two files that
    come to the same name are both refused. Raises InputError when there is none.
    """
    source = Path(source)
    if (source / "dataset.json").exists():
        task = dataset.read_task(source)
        found = [(case.id, case.image) for case in (*task.training, *task.test)]
    elif source.is_dir():
        files = sorted(p for p in source.iterdir() if p.is_file() and _is_scan(p))
        found = [(_stem(path), path) for path in files]
    elif source.exists():
        found = [(_stem(source), source)]
    else:
        raise InputError(f"no file or folder {source}")
    if not found and source.is_dir():
        series = dicom.find_series(source)
        if not series:
            raise InputError(f"{source} holds no {', '.join(ENDINGS)} or DICOM file")
        return [Scan(_safe(name), source, "", files) for name, files in series.items()]
    paths: dict[str, list[Path]] = {}
    for name, path in found:
        paths.setdefault(_safe(name), []).append(path)
    return [scan for name, same in paths.items() for scan in _scans(name, same)]


def _scans(name: str, paths: list[Path]) -> list[Scan]:
    if len(paths) == 1:
        return [Scan(name, paths[0])]
    both = " and ".join(str(path) for path in paths)
    problem = f"{both} share the name {name}; rename one"
    return [Scan(f"{name}~{n}", path, problem) for n, path in enumerate(paths, 1)]


def _is_scan(path: Path) -> bool:
    return path.name.endswith(ENDINGS) and not path.name.startswith(".")


def _stem(path: Path) -> str:
    return dataset.stem(path).removesuffix("_0000")


def _safe(name: str) -> str:
    """Returns a name of letters, digits, . - _ that is neither hidden nor a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:120] or "scan"
