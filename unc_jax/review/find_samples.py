"""Finds the files of samples that another tool made, by case."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unc_jax.data.dicom_series import PassedOver
from unc_jax.data.split import natural_order
from unc_jax.errors import InputError
from unc_jax.review import own_files
from unc_jax.review.sample_pattern import (
    ARRAYS,
    IMAGES,
    SUFFIXES,
    folder_expression,
    parser_of,
)
from unc_jax.review.scans import TAKEN

DEFAULT_PATTERN = "{case}/{sample}"
_KINDS = ".nii.gz, .nii, .npz or .npy"
# Read by other modules; not samples.
_READ = ("dataset.json", "plans.json", "splits_final.json")
_LIKE_SAMPLES = re.compile(
    r"(fold|sample|model|seed|member|run|mc|rater)[-_ ]?\d+", re.IGNORECASE
)
_REFERENCE = re.compile(
    r"(.*[-_ ])?(labels?|reference|truth|ground[-_ ]?truth|gt|manual|expert)",
    re.IGNORECASE,
)
_UNFIT, _OWN = "does not fit the pattern", "of an output"


class FoundSamples(NamedTuple):
    """Files of samples in a folder and its subfolders.

    Attributes:
      samples: case -> files of its samples, cases and files in natural order; for a
        case with a problem, the files found, or its folder.
      problems: case -> reason why its files cannot be scored.
      passed_over: all other files, and folders without samples.
    """

    samples: dict[str, list[Path]]
    problems: dict[str, str]
    passed_over: tuple[PassedOver, ...] = ()

    def check(self, case: str) -> None:
        """Raises InputError where a case has no samples to score."""
        if case in self.problems:
            raise InputError(self.problems[case])


def find_samples(
    root: Path, pattern: str = DEFAULT_PATTERN, output: Path | None = None
) -> FoundSamples:
    """Finds the files of each case.

    `pattern` is a path relative to `root` with {case} and {sample}, and * for any other
    text, e.g. "fold_{sample}/{case}.nii.gz"; without a suffix it matches every
    supported one. Without {sample} one file holds all samples of a case. Files that
    commands wrote into `root` or `output` are passed over, but not CASE/samples/ of
    another output.
    Raises InputError when there is no such folder, the pattern lacks {case}, nothing
    matches it, or folders look like samples where cases are expected.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of samples")
    found, folders, passed = _sort(root, pattern, output)
    if not found:
        others = [path for path, reason in passed.items() if reason == _UNFIT]
        there = others and others[0].relative_to(root).as_posix()
        hint = f"; there is {there}, say by --pattern what in it" if others else ""
        hint += " is {case} and what {sample}" if others else ""
        hint += ", or '{case}' if each file holds all samples" if others else ""
        if _OWN in passed.values():
            hint += (
                "; files that an earlier command wrote are not samples, but for those "
                "of {case}/samples/{sample}, scored to another --output"
            )
        raise InputError(f"{root}: no {_KINDS} fits {pattern!r}{hint}")
    if pattern == DEFAULT_PATTERN and (like := _like_samples(found)):
        first = natural_order(like)[0]
        raise InputError(
            f"{root}: folders such as {first} look like samples, not cases; say "
            "--pattern '*{sample}/{case}', or --pattern '{case}/{sample}*' if they "
            "are cases"
        )
    result = FoundSamples({}, {}, tuple(PassedOver(*one) for one in passed.items()))
    for case in natural_order({**found, **folders}):
        samples = found.get(case, {})
        try:
            result.samples[case] = _chosen(samples, folders.get(case))
        except InputError as error:
            files = [path for paths in samples.values() for path in paths]
            result.samples[case] = files or [folders[case]]
            result.problems[case] = str(error)
    return result


def _like_samples(found: dict[str, dict[str, list[Path]]]) -> list[str]:
    """Returns the cases that seem to be samples, which hold a file of each case.

    These are the cases with names like fold_0, if all cases have such names, or if
    several of these cases have a file name in common.
    """
    like = [case for case in found if _LIKE_SAMPLES.fullmatch(case)]
    several = len(like) > 1 and set.intersection(*(set(found[case]) for case in like))
    return like if several or len(like) == len(found) else []


def _sort(
    root: Path, pattern: str, output: Path | None
) -> tuple[dict[str, dict[str, list[Path]]], dict[str, Path], dict[Path, str]]:
    """Returns files by case and sample, folders by case, and reasons for all others."""
    parse, folder_fits = parser_of(pattern), folder_expression(pattern)
    own = _own_files(root, output)
    found: dict[str, dict[str, list[Path]]] = {}
    folders: dict[str, Path] = {}
    passed: dict[Path, str] = {}
    depth = pattern.count("/")
    for path in _entries(root, depth):
        relative = path.relative_to(root).as_posix()
        sample = parse(relative) if path.name.endswith(SUFFIXES) else None
        place = folder_fits and folder_fits.fullmatch(relative)
        # os.path returns False in a folder without search permission; pathlib raises.
        is_file, is_folder = os.path.isfile(path), os.path.isdir(path)
        gone = os.path.islink(path) and not os.path.exists(path)
        hidden = path.name[0] == "."
        if own and path.resolve() in own:
            passed[path] = _OWN
        elif sample and not hidden and (is_file or gone):
            case = found.setdefault(sample["case"], {})
            case.setdefault(sample.get("sample", ""), []).append(path)
        elif output := _output_around(path, root):
            passed[output] = "an output"
        elif hidden:
            passed[path] = "hidden"
        elif is_folder or (place and gone):
            if place and place["case"].casefold() not in TAKEN:
                folders.setdefault(place["case"], path)
            elif relative.count("/") > depth:
                passed[path] = "deeper than the pattern"
        elif not is_file:
            passed[path] = "no file, but a pipe, device or link"
        elif path.name not in _READ:
            known = path.name.endswith(SUFFIXES)
            passed[path] = _UNFIT if known else f"no {_KINDS}"
    return found, folders, passed


def _own_files(root: Path, output: Path | None) -> set[Path]:
    """Returns the files that commands wrote and that are no samples, resolved."""
    made = {path for path in own_files.find(root) if not own_files.is_sample(path)}
    made |= own_files.find(output) if output else set()
    return {path.resolve() for path in made}


def _output_around(path: Path, root: Path) -> Path | None:
    """Returns the folder below `root`, at or around a path, that a command wrote to."""
    below = len(path.relative_to(root).parts)
    around = [one for one in (path, *path.parents)[:below] if _is_output(one)]
    return around[-1] if around else None


def _is_output(folder: Path) -> bool:
    return own_files.is_held(folder) or own_files.is_output(folder)


def _chosen(samples: dict[str, list[Path]], folder: Path | None) -> list[Path]:
    """Returns the file of each sample of a case, in natural order.

    Raises InputError for a case without files, for two files of the same sample, for
    one that is called a reference, and for a broken link, because a missing sample
    would go unnoticed.
    """
    if not samples:
        raise InputError(f"{folder}: holds no {_KINDS} that fits the pattern")
    if len(samples) > 1 and (named := [n for n in samples if _REFERENCE.fullmatch(n)]):
        raise InputError(
            f"{samples[named[0]][0]}: is it a sample? Move references to a folder for "
            "--references, or say by --pattern how samples are called"
        )
    chosen = []
    for name in natural_order(samples):
        paths = sorted(samples[name], key=lambda p: SUFFIXES.index(_suffix(p)))
        if gone := [path for path in paths if not path.exists()]:
            raise InputError(f"{gone[0]}: a broken link; repair or remove it")
        for kind in (ARRAYS, IMAGES):
            same = [path for path in paths if path.name.endswith(kind)]
            if len(same) > 1:
                shared = f"sample {name}" if name else "case"
                names = f"{same[0]} and {same[1].name}"
                raise InputError(f"{names} are the same {shared}; rename one")
        chosen.append(paths[0])
    return chosen


def _entries(root: Path, depth: int) -> Iterator[Path]:
    """Yields files and folders down to one level below the depth of the pattern.

    Hidden folders are not entered. The additional level gives an example for the
    message when nothing matches.
    """
    for place, folders, files in os.walk(root, followlinks=True):
        level = len(Path(place).relative_to(root).parts)
        yield from (Path(place) / name for name in sorted([*folders, *files]))
        folders[:] = [f for f in sorted(folders) if f[0] != "." and level <= depth]


def _suffix(path: Path) -> str:
    return next(s for s in SUFFIXES if path.name.endswith(s))
