"""Finds the scans in a user's input: files, DICOM series, Decathlon or nnU-Net sets."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unc_jax.data import dataset, dicom, dicom_series, files, nifti
from unc_jax.data.dicom_series import PassedOver
from unc_jax.data.layouts import SCAN_NAMES
from unc_jax.data.nifti import ENDINGS
from unc_jax.errors import InputError
from unc_jax.review import own_files, passed_over

_LABELS = re.compile(r"(segmentation|label|mask)s?(tr|ts)?", re.IGNORECASE)
# Names in the output folder that a case must not have.
TAKEN = (
    *("cases.csv", "cases.unfinished.csv", "components.csv", "report.html"),
    *("run.json", own_files.RECORD, "pictures", "study"),
)
_LONGEST = 100  # characters of a name, before a digest
_SHOWN = 3  # problems that a message names


class Scan(NamedTuple):
    """A scan that was found.

    Attributes:
      case: unique name, safe as the name of a folder.
      path: of a NIfTI file, or of the folder of a DICOM series.
      problem: why the scan cannot be used; "" if it can.
      series: files of the DICOM series; empty for a NIfTI file.
      warnings: assumptions that were made about it.
      name: its name before it was made safe; "" if unknown.
    """

    case: str
    path: Path
    problem: str = ""
    series: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    name: str = ""

    @property
    def names(self) -> list[str]:
        """Returns the names that its mask may have in another folder.

        The file's own is one unless the scan is named by its folder, as CASE/ct.nii.gz.
        """
        by_folder = self.name and Path(self.name).name == self.path.parent.name
        own = "" if self.series or by_folder else _stem(self.path)
        return [*dict.fromkeys(filter(None, (self.case, self.name, own)))]

    def read(self) -> nifti.Volume:
        """Reads voxels and geometry; raises InputError that names a faulty file."""
        return dicom.read_series(self.series) if self.series else nifti.read(self.path)

    def digest(self) -> str:
        """Returns the SHA-256 of the concatenation of its files.

        Returns "" if a file is missing or unreadable; `read` then raises the reason.
        """
        paths = self.files()
        try:
            there = all(path.is_file() for path in paths)
            return files.digest(paths) if there else ""
        except OSError:
            return ""

    def files(self) -> list[Path]:
        """Returns the files of the scan."""
        return [*(self.series or nifti.files_of(self.path))]


class FoundScans(NamedTuple):
    """Scans that were found, and the files that are not part of any."""

    scans: tuple[Scan, ...]
    passed_over: tuple[PassedOver, ...]


def find_scans(source: Path) -> FoundScans:
    """Returns all scans of `source`: a file, a set with dataset.json, or a folder.

    For a set these are its training and test images; for a folder its NIfTI files or,
    if it has none, one per subfolder (CASE/ct.nii.gz), and all DICOM series in it and
    its subfolders. Two files with the same case name are both refused. Raises
    InputError when there is no scan.
    """
    source = Path(source)
    passed: list[PassedOver] = []
    series: list[dicom_series.Series] = []
    if (source / "dataset.json").exists():
        task = dataset.read_task(source)
        named = [(case.id, case.image) for case in (*task.training, *task.test)]
        refused = (*task.problems, *task.test_problems)
        passed += [PassedOver(source / p.case, p.message) for p in refused]
        passed += [PassedOver(p, "not in dataset.json") for p in task.unlisted]
    elif source.is_dir():
        paths = list(_walk(source, passed))
        scans = [path for path in paths if path.name.endswith(ENDINGS)]
        pairs = {path.with_suffix(".img") for path in scans if path.suffix == ".hdr"}
        others = sorted({*paths} - {*scans} - pairs)
        named = _named(source, scans, passed)
        series, without = _find_series(others, needed=not named)
        passed += without
    elif source.exists():
        named = [(_stem(source), source)]
    else:
        raise InputError(f"no file or folder {source}")
    found: dict[str, list[Scan]] = defaultdict(list)
    for name, path in named:
        found[safe_name(name)].append(Scan(safe_name(name), path, name=name))
    for one in series:
        name = safe_name(one.name, "\0".join(one.identity))
        scan = Scan(name, one.folder, one.problem, one.files, one.warnings)
        found[name].append(scan)
    result = FoundScans(tuple(_without_twins(found)), tuple(passed))
    if (
        series
        and len(series) == len(result.scans)
        and not any(one.readable for one in series)
    ):
        problems = "; ".join(scan.problem for scan in result.scans[:_SHOWN])
        raise InputError(f"{source} holds no scan that can be read: {problems}")
    if not result.scans:
        hint = "; ".join(passed_over.lines(passed)[:_SHOWN])
        kinds = ", ".join(ENDINGS)
        raise InputError(
            f"{source} holds no {kinds} or DICOM file; {hint}".rstrip("; ")
        )
    return result


def safe_name(name: str, identity: str = "") -> str:
    """Returns a file name of letters, digits and . - _ that is not hidden.

    A name that had to be changed, or that comes with an `identity`, is extended by a
    digest of the original name or the identity, so that it stays unique.
    """
    kept = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")[:_LONGEST]
    if kept == name and kept.casefold() not in TAKEN and not identity:
        return kept
    told = (identity or name).encode("utf-8", "surrogatepass")
    return f"{kept or 'scan'}_{hashlib.sha256(told).hexdigest()[:8]}"


def _find_series(
    paths: Sequence[Path], *, needed: bool
) -> tuple[list[dicom_series.Series], list[PassedOver]]:
    """Finds DICOM series; without pydicom raises InputError if `needed`, else skips."""
    try:
        return dicom_series.find_series(paths)
    except InputError as error:
        if needed:
            raise
        return [], [PassedOver(path, str(error)) for path in paths]


def _walk(source: Path, passed: list[PassedOver]) -> Iterator[Path]:
    """Yields the regular files below a folder and notes all others in `passed`.

    Links to folders are not followed. Files that commands wrote are not scans; other
    files in their folders may be.
    """
    own = own_files.find(source)
    for place, folders, names in os.walk(source):
        for name in sorted(folders):
            path = Path(place, name)
            closed = not os.access(path, os.R_OK | os.X_OK)
            reason = "a folder that may not be read" if closed else ""
            reason = "hidden" if name.startswith(".") else reason
            reason = "a link to a folder" if path.is_symlink() else reason
            if not reason and own_files.is_output(path):
                own |= (made := own_files.find(path))
                reason = "an output" if _visible_files(path) <= made else ""
            elif own_files.is_held(path):
                reason = "an output"
            if reason:
                folders.remove(name)
                passed.append(PassedOver(path, reason))
        folders.sort()
        for path in (Path(place, name) for name in sorted(names)):
            if path.name.startswith("."):
                passed.append(PassedOver(path, "hidden"))
            elif path in own:
                passed.append(PassedOver(path, "of an output"))
            elif not os.path.isfile(path):
                passed.append(PassedOver(path, "no file, but a pipe, device or link"))
            else:
                yield path


def _visible_files(folder: Path) -> set[Path]:
    found = set()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found |= {Path(place, name) for name in names if not name.startswith(".")}
    return found


def _named(
    source: Path, scans: Sequence[Path], passed: list[PassedOver]
) -> list[tuple[str, Path]]:
    """Returns name and path of the NIfTI scans to use; notes the others in `passed`."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in scans:
        by_folder[path.parent].append(path)
    top = sorted(by_folder.pop(source, []))
    named = [(_stem(path), path) for path in top]
    for folder, paths in sorted(by_folder.items()):
        chosen = [path for path in paths if _stem(path) in SCAN_NAMES]
        alone = not _LABELS.fullmatch(folder.name) and len(paths) == 1
        chosen = chosen or (paths if alone else [])
        if top or len(chosen) != 1:
            chosen = []
        case = folder.relative_to(source).as_posix()
        named += [(case, path) for path in chosen]
        reason = "a folder of its own: name it by --input"
        if chosen or _LABELS.fullmatch(folder.name):
            reason = "beside the scan, or labels"
        passed += [PassedOver(p, reason) for p in sorted(paths) if p not in chosen]
    return named


def _without_twins(found: dict[str, list[Scan]]) -> Iterator[Scan]:
    for name, twins in found.items():
        if len(twins) == 1:
            yield twins[0]
            continue
        both = " and ".join(str(scan.path) for scan in twins)
        problem = f"{both} share the name {name}; rename one"
        for number, scan in enumerate(twins, 1):
            yield scan._replace(case=f"{name}~{number}", problem=problem)


def _stem(path: Path) -> str:
    return dataset.stem(path).removesuffix("_0000")
