"""Records of the files that commands wrote: only these are replaced or removed.

OUTPUT/output.json lists the tables and the report, OUTPUT/CASE/case.json the maps and
pictures of a case, each with its SHA-256. While files are being written, .begun.json
beside the record lists their patterns, so that files of a killed command are known too.
"""

import contextlib
import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from unc_jax.data import files, scan_maps
from unc_jax.errors import InputError

RECORD = "output.json"
_CASE_RECORD, _BEGUN = "case.json", ".begun.json"
_MAPS = tuple(f"{name}.nii.gz" for name in scan_maps.MAPS)
_SEGMENTATIONS = tuple(f"{name}.dcm" for name in scan_maps.MAPS)
_SAMPLES = ("samples/[0-9][0-9]*.nii.gz",)
_TABLES = (
    *("cases.csv", "cases.unfinished.csv", "components.csv"),
    *("run.json", "report.html"),
)
_STUDY = tuple(
    f"study/{below}{name}"
    for below in ("", "*/")
    for name in ("cases.csv", "summary.json", "figure2.png")
)


class OutputPart(NamedTuple):
    """A part of an output: its tables, or what belongs to one case.

    Attributes:
      case: name of the case, "" for the tables.
      patterns: glob patterns, relative to the output, of the files that a command may
        write.
    """

    output: Path
    case: str
    patterns: tuple[str, ...]

    @property
    def record(self) -> Path:
        return self.output / self.case / (_CASE_RECORD if self.case else RECORD)

    @property
    def _begun(self) -> Path:
        return self.output / self.case / _BEGUN

    def stored(self) -> dict[str, Any]:
        """Returns the content of the record; {} without a valid one."""
        return _object_with("files", dict, self.record)

    def listed(self) -> dict[Path, str | None]:
        """Returns the recorded files, existing or not, with their SHA-256.

        The SHA-256 is None for a file that was being written when its command ended.
        """
        allowed = _everything(self.case)
        known: dict[Path, str | None] = dict.fromkeys(self._present(self._in_work()))
        for name, digest in self.stored().get("files", {}).items():
            inside = ".." not in PurePosixPath(name).parts  # whoever wrote the record
            if inside and any(fnmatch.fnmatchcase(name, one) for one in allowed):
                known.setdefault(self.output / name, digest)
        return known

    def own(self) -> set[Path]:
        """Returns all files that commands wrote, including the record itself."""
        records = {self.record} if self.stored() else set()
        return {*self.listed(), *records}

    def in_place(self) -> set[Path]:
        """Returns the existing files, recorded or not, that this part would replace."""
        return {*self._present(self.patterns), *filter(os.path.exists, [self.record])}

    def require_unchanged(self) -> None:
        """Raises InputError for a recorded file whose content has changed."""
        for path, digest in self.listed().items():
            if digest and os.path.isfile(path) and files.digest([path]) != digest:
                raise InputError(
                    f"{path}: was changed after it was written; move it away so that "
                    "it is written again, or name another --output"
                )

    def begin(self) -> None:
        """Removes the files of earlier commands and records the patterns of new ones.

        The patterns of a command that was killed stay recorded until `finish`. Raises
        InputError, before removing anything, if a file was changed since.
        """
        self.require_unchanged()
        patterns = [*dict.fromkeys([*self._in_work(), *self.patterns])]
        files.write_json(self._begun, {"patterns": patterns})
        for path in self.own():
            path.unlink(missing_ok=True)

    def finish(self, **content: Any) -> None:
        """Writes the record: the files that were written, and `content`."""
        found = {
            path.relative_to(self.output).as_posix(): files.digest([path])
            for path in sorted(self.listed())
        }
        files.write_json(self.record, {"files": found, **content})
        self._begun.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[dict[str, Any]]:
        """Begins and finishes the part; yields a dict to add to its record.

        If the block fails, all files of the part are removed.
        """
        content: dict[str, Any] = {}
        new = not self._begun.parent.exists()
        self.begin()
        try:
            yield content
        except Exception:
            for path in (*self.own(), self._begun):
                path.unlink(missing_ok=True)
            if new:
                with contextlib.suppress(OSError):  # a folder with other files
                    self._begun.parent.rmdir()
            raise
        self.finish(**content)

    def _in_work(self) -> list[str]:
        """Returns the patterns of the files that a command began to write."""
        begun = _object_with("patterns", list, self._begun).get("patterns", [])
        return [one for one in _everything(self.case) if one in begun]

    def _present(self, patterns: Iterable[str]) -> Iterator[Path]:
        for pattern in patterns:
            yield from filter(os.path.isfile, self.output.glob(pattern))


def of_tables(output: Path, *, study: bool = False) -> OutputPart:
    """Returns the part of the tables and the report; study: also of study/."""
    return OutputPart(output, "", _TABLES + _STUDY * study)


def of_case(
    output: Path, case: str, *, samples: bool = False, segmentations: bool = False
) -> OutputPart:
    """Returns the part of a case: maps, pictures and, if asked for, further files."""
    names = _MAPS + _SAMPLES * samples + _SEGMENTATIONS * segmentations
    name = glob.escape(case)
    pictures = f"pictures/{name}.png", f"pictures/{name}/*.png"
    return OutputPart(output, case, (*(f"{name}/{one}" for one in names), *pictures))


def is_held(folder: Path) -> bool:
    """Tells whether a command, of whatever kind, is writing to a folder."""
    return os.path.exists(folder / files.HOLDER)


def is_output(folder: Path) -> bool:
    """Tells whether a command wrote, or began to write, an output there."""
    part = of_tables(folder)
    return bool(part.stored()) or os.path.isfile(folder / _BEGUN)


def find(output: Path) -> set[Path]:
    """Returns all files that commands wrote into an output, or into a case of one."""
    found: set[Path] = set()
    if output.name and is_output(output.parent):
        found |= of_case(output.parent, output.name).own()
    if not is_output(output):
        return found
    found |= of_tables(output).own()
    for name in (_CASE_RECORD, _BEGUN):
        for path in output.glob(f"*/{name}"):
            found |= of_case(output, path.parent.name).own()
    return found


def is_sample(path: Path) -> bool:
    """Tells whether a file is one of CASE/samples/ of an output."""
    folder = path.parent
    return folder.name == "samples" and is_output(folder.parent.parent)


def cases(output: Path) -> set[str]:
    """Returns the cases whose maps commands wrote into a folder as their output."""
    found = output.glob(f"*/{_CASE_RECORD}") if is_output(output) else ()
    return {path.parent.name for path in found}


def check(parts: Iterable[OutputPart], read: Iterable[Path | None]) -> None:
    """Raises InputError if the parts would replace files of others, or files to `read`.

    So does a table that was changed since; of a changed map the case alone fails.
    """
    needed = {path.resolve() for path in read if path}
    for part in parts:
        own = part.own()
        for path in sorted(own | part.in_place()):
            if path.resolve() in needed:
                raise InputError(
                    f"{path}: is read by this command, which would replace or remove "
                    "it; name another --output"
                )
            if path not in own:
                raise InputError(
                    f"{path}: would be replaced, but no record says that a command "
                    "wrote it; move it away, or name another --output"
                )
        if not part.case:
            part.require_unchanged()


def check_study(output: Path, written: Iterable[str], begun: bool) -> None:
    """Raises InputError if a study of runs would replace files of others.

    Args:
      written: names of the files of the study, relative to the output.
      begun: the same command wrote, or began to write, its files there.
    """
    if is_output(output):
        raise InputError(
            f"{output} holds the cases of another command; name another --output"
        )
    there = [output / name for name in written if os.path.lexists(output / name)]
    if there and not begun:
        raise InputError(
            f"{there[0]}: would be replaced, but this command did not write it; move "
            "it away, or name another --output"
        )


def _everything(case: str) -> tuple[str, ...]:
    """Returns the patterns of all files that any command writes for a part."""
    if not case:
        return of_tables(Path(), study=True).patterns
    return of_case(Path(), case, samples=True, segmentations=True).patterns


def _object_with(key: str, kind: type, path: Path) -> dict[str, Any]:
    """Reads a JSON object that has `key`; {} for anything else."""
    try:
        content = files.read_json(path)
    except InputError:
        return {}
    good = isinstance(content, dict) and isinstance(content.get(key), kind)
    return content if good else {}
