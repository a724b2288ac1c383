"""Splits of cases into training, validation and test."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from unc_jax.data.files import expanded, read_json, write_json
from unc_jax.errors import InputError, counted

_PARTS = ("train", "validation", "test")


class Split(NamedTuple):
    """Case ids of the three parts, disjoint, each part in natural order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorts names with their numbers as numbers: liver_2 before liver_10."""

    def key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
        runs = re.findall(r"([0-9]+)|([^0-9]+)", name)
        return [(not digits, int(digits or 0), text) for digits, text in runs], name

    return sorted(names, key=key)


def make_split(
    case_ids: Iterable[str],
    seed: int,
    shares: Sequence[int],
    *,
    fold: int,
    folds: int,
) -> Split:
    """Splits the cases at random in the proportions of `shares`.

    By the paper's shares 63, 13 and 55 the sizes for n cases are the largest remainders
    of n * 63 / 131 and so on, with at least one case in each part. The ids are ordered
    by a hash of (seed, id), which depends neither on file order nor on library
    versions.

    fold: with 0 ... folds - 1 the test cases are that section of this order, and the
    validation cases follow them, so that each case is a test case of exactly one fold.
    Fold sizes differ by at most one, and the other cases are divided by the first two
    shares: 20 cases in 5 folds give 13, 3 and 4.

    Raises InputError for fewer than three cases, too few for the folds, or an id that
    occurs twice.
    """
    ids = list(case_ids)
    twice = _repeated(ids)
    if twice:
        raise InputError(f"case {twice[0]} occurs twice; give each case its own id")
    if len(ids) < len(_PARTS):
        raise InputError(
            f"{counted(len(ids), 'case')} cannot be split in three; at least 3 needed"
        )

    def draw(case: str) -> bytes:
        return hashlib.sha256(f"split {seed} {case}".encode()).digest()

    drawn = sorted(ids, key=draw)
    if fold < 0:
        train, validation, _ = _sizes(len(ids), shares)
        cuts = (drawn[:train], drawn[train:][:validation], drawn[train + validation :])
    else:
        if len(ids) < folds or -(-len(ids) // folds) > len(ids) - 2:
            raise InputError(
                f"{counted(len(ids), 'case')} cannot be divided into {folds} folds "
                "(data.folds), each with a test case and two others"
            )
        start, end = (len(ids) * one // folds for one in (fold, fold + 1))
        others = drawn[end:] + drawn[:start]
        _, validation = _sizes(len(others), shares[:2])
        cuts = (others[validation:], others[:validation], drawn[start:end])
    return Split(*(tuple(natural_order(cut)) for cut in cuts))


def choose_split(
    case_ids: Sequence[str],
    split_file: str,
    *,
    seed: int,
    shares: Sequence[int],
    fold: int,
    folds: int,
) -> Split:
    """Returns the split in `split_file`; with "" makes one, see `make_split`."""
    if split_file:
        return read_split(expanded(split_file), case_ids)
    return make_split(case_ids, seed, shares, fold=fold, folds=folds)


def read_split(path: Path, case_ids: Iterable[str]) -> Split:
    """Reads {"train": [...], "validation": [...], "test": [...]}, lists of case ids.

    Cases of `case_ids` that are not in the file are not used. Raises InputError when
    the file is missing or not of this form, a part is empty, or a case is listed twice
    or is not among `case_ids`.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or set(content) != set(_PARTS):
        raise InputError(
            f"split file {path} must hold exactly the lists {_listed(_PARTS)}"
        )
    for part in _PARTS:
        ids = content[part]
        if not isinstance(ids, list) or not all(isinstance(case, str) for case in ids):
            raise InputError(f"split file {path}: {part} is not a list of case ids")
        if not ids:
            raise InputError(
                f"split file {path}: {part} is empty; name at least one case"
            )
    everyone = [case for part in _PARTS for case in content[part]]
    if twice := _repeated(everyone):
        raise InputError(f"split file {path}: listed more than once: {_listed(twice)}")
    if unknown := natural_order(set(everyone) - set(case_ids)):
        raise InputError(f"split file {path}: not in the data set: {_listed(unknown)}")
    return Split(*(tuple(natural_order(content[part])) for part in _PARTS))


def write_split(path: Path, split: Split) -> None:
    """Writes the file that `read_split` reads."""
    write_json(path, split._asdict())


def _sizes(count: int, shares: Sequence[int]) -> list[int]:
    """Returns largest-remainder shares of `count`, each at least 1."""
    total = sum(shares)
    sizes = [count * share // total for share in shares]
    by_remainder = sorted(
        range(len(shares)), key=lambda i: -(count * shares[i] % total)
    )
    for part in by_remainder[: count - sum(sizes)]:
        sizes[part] += 1
    while 0 in sizes:
        sizes[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(0)] += 1
    return sizes


def _repeated(ids: list[str]) -> list[str]:
    seen: set[str] = set()
    return natural_order({case for case in ids if case in seen or seen.add(case)})


def _listed(names: Iterable[str]) -> str:
    names = [ascii(name)[1:-1] for name in names]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
