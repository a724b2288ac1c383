"""Finds the label values of the targets by the names in a data set."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.errors import InputError

Names = dict[str, tuple[int, ...]]  # name -> label values, including 0
LARGEST = 32767  # largest label in a map of several structures, which is int16
LARGEST_TRAINED = 255  # largest label in a training set, which is read as uint8

_LIVER = {"liver", "livers", "hepatic"}
_TUMOUR = {"tumor", "tumors", "tumour", "tumours", "cancer", "cancers", "lesion"}
_TUMOUR |= {"lesions", "hcc", "metastasis", "metastases", "carcinoma", "neoplasm"}
_FILLER = {"the", "of", "and", "with", "incl", "including", "in", "whole", "entire"}
_FILLER |= {
    "organ",
    "parenchyma",
    "healthy",
    "normal",
    "left",
    "right",
    "lobe",
    "lobes",
}
IGNORED = "ignore"  # nnU-Net: unlabelled voxels


class Target(NamedTuple):
    """Values of the organ (tumours included) and of its tumours; text on them."""

    liver: tuple[int, ...]
    tumor: tuple[int, ...]
    words: str


def read_names(listed: Any, place: Path) -> Names:
    """Parses {"1": "liver"}, or nnU-Net's {"organ": [1, 2]}, to the names' values.

    Raises InputError that names the file `place` for anything else.
    """
    names: dict[str, tuple[int, ...]] = {}
    try:
        for key, value in dict(listed or {}).items():
            if isinstance(value, str):
                names[value] = (*names.get(value, ()), int(key))
            else:
                values = value if isinstance(value, list) else [value]
                names[str(key)] = tuple(map(_whole, values))
    except (TypeError, ValueError):
        names = {}
    if not names:
        raise InputError(
            f'{place}: "labels" must map values to names, as {{"1": "liver"}}'
        )
    return names


def _whole(number: Any) -> int:
    if isinstance(number, float) and not number.is_integer():
        raise ValueError(number)
    return int(number)


def by_value(names: Names) -> dict[int, str]:
    """Returns the name of each value; with overlapping regions the first."""
    found: dict[int, str] = {}
    for name, values in names.items():
        for value in values:
            found.setdefault(value, name)
    return found


def find_target(
    names: Names,
    target: str,
    place: Path,
    *,
    liver: Sequence[int] = (),
    tumor: Sequence[int] = (),
) -> Target:
    """Finds the values of "liver" (with its tumours) and of "tumor" by their names.

    The values `liver` and `tumor`, if given, have precedence over names. An organ that
    is found by its name includes the tumours; so does any of the target "tumor", as
    voxels outside it are erased. Raises InputError that lists the names if none matches
    the target, or if a given value has no name or is the ignored label.
    """
    listed = _listed(names, [value for value in by_value(names) if value])
    organs = [name for name in names if _is_organ(name)]
    others = [
        n for n in names if not (_is_organ(n) or is_tumour(n) or _is_none(n, names))
    ]
    tumours = [n for n in names if is_tumour(n) and (_words(n) & _LIVER or not others)]
    found_tumor = tuple(tumor) or _values(names, tumours)
    by_name = _values(names, organs)
    found_liver = tuple(liver) or (
        by_name and tuple(sorted({*by_name, *_values(names, tumours), *tumor}))
    )
    field = "liver_labels" if not found_liver else "tumor_labels"
    if not found_liver or (target == "tumor" and not found_tumor):
        what = "no liver" if not found_liver else "no tumours of the liver"
        raise InputError(
            f"{place}: names {what} among {listed or 'its labels'}; set the values of "
            f'the target by --config.data.{field}="(1,)"'
        )
    if unnamed := {*liver, *tumor} - {*by_value(names)}:
        raise InputError(
            f"{place}: no label has the value {min(unnamed)}, so it cannot be in "
            f"data.liver_labels or data.tumor_labels; there are {listed or 'no labels'}"
        )
    if target == "tumor":
        found_liver = tuple(sorted({*found_liver, *found_tumor}))
    if wrong := {*ignored(names)} & {*found_liver, *found_tumor}:
        raise InputError(
            f"{place}: label {min(wrong)} is to be ignored, so it cannot be in "
            "data.liver_labels or data.tumor_labels"
        )
    chosen = found_liver if target == "liver" else found_tumor
    rest = _listed(names, [v for v in by_value(names) if v and v not in chosen])
    words = f"target {target}: {_listed(names, chosen)}"
    words += f" within {_listed(names, found_liver)}" if target == "tumor" else ""
    return Target(found_liver, found_tumor, words + (f"; not {rest}" if rest else ""))


def ignored(names: Names) -> tuple[int, ...]:
    """Returns the values of voxels that nobody labelled, in nnU-Net called "ignore"."""
    return _values(names, [name for name in names if name.lower() == IGNORED])


def _is_organ(name: str) -> bool:
    words = _words(name)
    return (
        "liver" in words
        and not words - _LIVER - _TUMOUR - _FILLER
        and not (is_tumour(name))
    )


def is_tumour(name: str) -> bool:
    """Tells by its name whether a label contains only tumours."""
    words = _words(name)
    whole = words & {"and", "with", "incl", "including"}  # "liver and tumour" is both
    return (
        bool(words & _TUMOUR) and not words - _LIVER - _TUMOUR - _FILLER and not whole
    )


def _is_none(name: str, names: Names) -> bool:
    return name.lower() in ("background", IGNORED) or set(names[name]) <= {0}


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def _values(names: Names, chosen: Sequence[str]) -> tuple[int, ...]:
    return tuple(sorted({value for name in chosen for value in names[name]} - {0}))


def _listed(names: Mapping[str, tuple[int, ...]], values: Sequence[int]) -> str:
    known = by_value(dict(names))
    return ", ".join(f"{value} {known.get(value, 'unnamed')}" for value in values)
