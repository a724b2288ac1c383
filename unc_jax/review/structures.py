"""Structures to score: their names and their labels in label maps."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from unc_jax.data import dataset, files, label_names
from unc_jax.data.label_names import Names
from unc_jax.errors import InputError

ALL = "all"
_ASIDE = ("background", label_names.IGNORED)  # not structures

NUMBERED = "label "  # prefix of the number, for a structure without a name


class Structure(NamedTuple):
    """A structure: its name, and the labels whose union it is.

    Without labels it has no name and is everything that is not 0.
    """

    name: str = ""
    values: tuple[int, ...] = ()


ANY = Structure()


class Wanted(NamedTuple):
    """Structures to score.

    Attributes:
      listed: the requested structures; for "all", every structure with a name.
      regions: every structure with a name, in the order of the channels of a network
        that was trained on regions.
      every: "all" was requested: labels without a name are scored too, and structures
        in neither samples nor reference of a case are left out of that case.
      ignored: labels of voxels that nobody labelled.
    """

    listed: tuple[Structure, ...] = (ANY,)
    regions: tuple[Structure, ...] = ()
    every: bool = False
    ignored: tuple[int, ...] = ()

    @property
    def single(self) -> bool:
        """Tells whether a case has exactly one structure."""
        return not self.every and len(self.listed) == 1

    def of_case(self, found: Collection[int]) -> list[Structure]:
        """Returns the structures to score in a case whose maps have these labels."""
        if not self.every:
            return list(self.listed)
        named = {value for one in self.listed for value in one.values}
        named |= {*self.ignored}
        rest = [Structure(f"{NUMBERED}{v}", (v,)) for v in sorted(set(found) - named)]
        there = [one for one in self.listed if not set(found).isdisjoint(one.values)]
        return there + rest


def wanted_of(
    labels: Sequence[Sequence[int | str]], names: Names | None, place: str
) -> Wanted:
    """Returns the structures of --label; ((1, 2), ("spleen",)) are two structures.

    Args:
      labels: numbers or names of each structure; (("all",),) selects all structures, ()
        the only structure of the maps.
      names: labels by their names, as read from `place`; None: there are no names.

    Raises InputError for a name that is unknown, a structure named twice, and a label
    that no map holds.
    """
    ignored = label_names.ignored(names or {})
    regions = tuple(
        Structure(name, values)
        for name, values in (names or {}).items()
        if name.lower() not in _ASIDE and set(values) != {0}
    )
    for name, values in regions:
        if max(values, default=0) > label_names.LARGEST:
            raise InputError(
                f"{place}: {name} has the label {max(values)}; the largest supported "
                f"label is {label_names.LARGEST}"
            )
    if not labels:
        return Wanted(regions=regions, ignored=ignored)
    if tuple(map(tuple, labels)) == ((ALL,),):
        return Wanted(regions, regions, every=True, ignored=ignored)
    listed = tuple(_structure(parts, names, place) for parts in labels)
    if len({one.name for one in listed}) < len(listed):
        raise InputError("--label names a structure twice; a+b merges two into one")
    return Wanted(listed, regions, ignored=ignored)


def read_names(file: Path) -> Names:
    """Reads names of labels from a dataset.json, or from JSON like {"1": "liver"}.

    Raises InputError that names the file when it cannot be read.
    """
    content = files.read_json(file)
    listed = content.get("labels", content) if isinstance(content, dict) else None
    return label_names.read_names(listed, file)


def find_names(samples: Path, references: Path | None) -> tuple[Names | None, str]:
    """Reads the names in the first dataset.json at the samples or references.

    Returns them with the folder of the file; without a file, None and a text for
    messages. Raises InputError when another of these files gives a name, in capitals or
    not, other labels, or when another of the samples gives the same labels other names;
    references may have a synonym.
    """
    beside = [references, references.parent] if references else []
    own = [samples, *sorted(path for path in samples.glob("*") if path.is_dir())]
    own = [path for path in own if path not in beside]
    named = [one for one in [*own, *beside] if (one / "dataset.json").is_file()]
    if not named:
        return None, "no dataset.json at the samples or references"
    first = dataset.read_names(named[0])
    for other in named[1:]:
        theirs = {n.casefold(): v for n, v in dataset.read_names(other).items()}
        for name, values in first.items():
            found = theirs.get(name.casefold(), values)
            if set(found) != set(values):
                raise InputError(
                    f"{other}: {name} has the labels {found}, but {values} in "
                    f"{named[0]}; give both the same labels"
                )
            renamed = [n for n, v in theirs.items() if set(v) == set(values)]
            if other in own and renamed and name.casefold() not in renamed:
                raise InputError(
                    f"{other}: the labels {values} are {renamed[0]}, but {name} in "
                    f"{named[0]}; score them apart, or give the names by --names FILE"
                )
    return first, str(named[0])


def map_values(structures: Sequence[Structure]) -> dict[str, int]:
    """Returns the value of each structure, by name, in a label map of all structures.

    It is the structure's first label that no structure with more labels uses, otherwise
    an unused number.
    """
    taken: dict[str, int] = {}
    beyond = max((value for one in structures for value in one.values), default=0)
    for one in sorted(structures, key=lambda one: -len(one.values)):
        used = taken.values()
        free = [value for value in one.values if value not in used]
        taken[one.name] = free[0] if free else max(beyond, *used) + 1
    return taken


def _structure(
    parts: Sequence[int | str], names: Names | None, place: str
) -> Structure:
    values: list[int] = []
    words = []
    known = {values: name for name, values in reversed((names or {}).items())}
    for part in parts:
        if isinstance(part, int):
            values.append(part)
            words.append(known.get((part,), f"{NUMBERED}{part}"))
            continue
        if names is None:
            raise InputError(
                f"--label {part}: {place} says which number that is; give the number, "
                "or the names by --names FILE"
            )
        if part not in names:
            raise InputError(f"--label {part}: {place} has {', '.join(names)}")
        values += names[part]
        words.append(part)
    return Structure("+".join(words), tuple(dict.fromkeys(values)))
