"""Patterns of file names, e.g. "fold_{sample}/{case}": case and sample of a file."""

import re
from collections.abc import Callable

from unc_jax.errors import InputError

# Arrays are preferred to a NIfTI file of the same name, which gives their grid.
ARRAYS, IMAGES = (".npz", ".npy"), (".nii.gz", ".nii")
SUFFIXES = ARRAYS + IMAGES


def parser_of(pattern: str) -> Callable[[str], dict[str, str] | None]:
    """Returns a function from a relative path to its case and sample.

    It gives None for a path that does not fit, and raises InputError for one that fits
    in two ways. Within one name a sample has no separators if that fits:
    r{sample}_{case} reads r0_site_1 as sample 0 of site_1.
    """
    together = any("{case}" in p and "{sample}" in p for p in pattern.split("/"))
    samples = ("[^/_. -]+", "[^/]+") if together else ("[^/]+",)
    ways = [
        (_expression(pattern, one), _expression(pattern, f"{one}?")) for one in samples
    ]

    def parse(relative: str) -> dict[str, str] | None:
        """Returns case and sample of a path that fits, otherwise None."""
        for longest, shortest in ways:
            found, other = longest.fullmatch(relative), shortest.fullmatch(relative)
            if found and other:
                if found.groupdict() != other.groupdict():
                    cases = f"case {found['case']} or {other['case']}"
                    raise InputError(
                        f"{relative} fits {pattern!r} in two ways, {cases}; put cases "
                        "or samples into folders of their own, or rename the files"
                    )
                return found.groupdict()
        return None

    return parse


def _expression(pattern: str, sample: str) -> re.Pattern[str]:
    parts = re.split(r"(\{case\}|\{sample\}|\*)", pattern)
    names = sorted(p for p in parts if p[:1] == "{")
    if names not in (["{case}"], ["{case}", "{sample}"]):
        raise InputError(
            f"pattern {pattern!r} must hold {{case}} and {{sample}} once each, e.g. "
            "'fold_{sample}/{case}', or {case} alone, where a file has all samples"
        )
    text = _as_regex(pattern, sample)
    if not pattern.endswith(SUFFIXES):
        text += "(?:" + "|".join(map(re.escape, SUFFIXES)) + ")"
    return re.compile(text)


def folder_expression(pattern: str) -> re.Pattern[str] | None:
    """Returns the expression for a case's folder; None if cases have no folders."""
    before, _, behind = pattern.partition("{case}")
    rest, slash, _ = behind.partition("/")
    regex = _as_regex(before + "{case}" + rest, "[^/]+")
    return re.compile(regex) if slash else None


def _as_regex(pattern: str, sample: str) -> str:
    # * is not greedy: "*{sample}" matches all of fold_1 and fold_11 as the sample.
    special = {
        "{case}": r"(?P<case>[^/]+)",
        "{sample}": rf"(?P<sample>{sample})",
        "*": "[^/]*?",
    }
    parts = re.split(r"(\{case\}|\{sample\}|\*)", pattern)
    return "".join(special.get(part, re.escape(part)) for part in parts)
