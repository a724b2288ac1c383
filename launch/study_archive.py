"""The archive of a study in slices: finished models without their weights."""

import contextlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unc_jax.errors import InputError
from unc_jax.study import case_columns, cases_table
from unc_jax.study.figures import choose_cases

TIMES, LOG = "times.json", "log.txt"
_TABLE = "table.md"  # of the last files that an evaluation writes
# What goes first when the archive is too large; without any of these the tables can be
# made, from config.json, cases.csv and voxels.json.
_DISPENSABLE = (
    *("report.html", "features.json", "panels", "progress.png", "figures"),
    *("voxels", "metrics.jsonl"),
)
_NEVER = ("checkpoints", "predictions", ".")


def is_finished(run: Path) -> bool:
    """Tells whether a run folder holds a finished evaluation."""
    return (run / "cases.csv").is_file() and (run / _TABLE).is_file()


def read_times(work: Path) -> dict[str, Any]:
    """Returns the content of WORK/times.json, {} without the file."""
    path = work / TIMES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def pack(
    work: Path, archive: Path, models: Sequence[str], *, max_bytes: float
) -> list[str]:
    """Writes the finished ones of WORK/runs/MODEL, times and log into an archive.

    Checkpoints and caches stay out, and all slices but those of Figure 1's cases.
    Returns the names of what was left out besides, so that it holds at most `max_bytes`
    bytes. Raises InputError where the tables alone are larger; the archive that was
    there stays.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(f".{archive.name}.tmp")
    finished = [work / "runs" / m for m in models if is_finished(work / "runs" / m)]
    shown = _shown_cases(finished)
    try:
        for count in range(len(_DISPENSABLE) + 1):
            left_out = _DISPENSABLE[:count]
            with tarfile.open(temporary, "w:xz", preset=1) as tar:
                for path in _kept(work, finished, shown, left_out):
                    tar.add(path, path.relative_to(work), recursive=False)
            if temporary.stat().st_size <= max_bytes:
                os.replace(temporary, archive)
                return list(left_out)
    finally:
        temporary.unlink(missing_ok=True)
    raise InputError(
        f"{archive}: the tables alone take more than {max_bytes:.0f} bytes"
    )


def unpack(archive: Path, work: Path) -> None:
    """Unpacks an archive into WORK; files that are there stay as they are."""
    with _opened(archive) as tar:
        new = [one for one in tar if not (work / one.name).exists()]
        tar.extractall(work, new, filter="data")


def read_archived_times(archive: Path) -> dict[str, Any]:
    """Returns the content of the archive's times.json, {} without one."""
    with _opened(archive) as tar:
        found = TIMES in tar.getnames() and tar.extractfile(TIMES)
        return json.load(found) if found else {}


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error})") from None


def _kept(
    work: Path, finished: Sequence[Path], shown: set[str], left_out: Sequence[str]
) -> Iterable[Path]:
    yield from filter(Path.is_file, (work / TIMES, work / LOG))
    for run in finished:
        for path in sorted(run.rglob("*")):
            first = path.relative_to(run).parts[0]
            if first in left_out or first.startswith(_NEVER) or not path.is_file():
                continue
            if first != "panels" or path.stem in shown:
                yield path


def _shown_cases(finished: Sequence[Path]) -> set[str]:
    """Returns the best, median and worst test case of the first run of each target.

    Figure 1 of several models shows cases of which all have a slice.
    """
    shown, seen = set(), set()
    for run in finished:
        if (target := run.name.split("_")[0]) not in seen:
            seen.add(target)
            columns = case_columns.EVALUATION_COLUMNS
            rows = cases_table.read_rows(run / "cases.csv", columns)
            dice = {
                str(row["case"]): float(row["dice"])
                for row in rows
                if row["split"] == "test" and row["dice"] is not None
            }
            shown |= set(choose_cases(dice).values())
    return shown
