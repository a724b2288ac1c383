"""Files of samples that another tool made, by case."""

import os
import re
from pathlib import Path

from unc_jax.data.split import natural_order
from unc_jax.errors import InputError

DEFAULT_PATTERN = "{case}/{sample}"
# Arrays before the NIfTI file of the same name: it has their grid, they say more.
_SUFFIXES = (".npz", ".npy", ".nii.gz", ".nii")
_LIKE_SAMPLES = re.compile(
    r"(fold|sample|model|seed|member|run|mc|rater)[-_ ]?\d+", re.IGNORECASE
)


def find_samples(root: Path, pattern: str = DEFAULT_PATTERN) -> dict[str, list[Path]]:
    """Returns the files of each case, {case: [file of sample, ...]}, in natural order.

    `pattern` is a path below `root` with {case} and {sample} in it, and * for what does
    not matter, e.g. "fold_{sample}/{case}.nii.gz"; without a suffix any will do.
    Without {sample} a case has one file, of all its samples.
    Raises InputError when there is no such folder, the pattern lacks a name, nothing
    fits it, or folders look like samples where cases are expected.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of samples")
    expression = _expression(pattern)
    found: dict[str, dict[str, Path]] = {}
    others = []
    for path in _files(root, depth=pattern.count("/")):
        relative = path.relative_to(root).as_posix()
        match = expression.fullmatch(relative)
        if not match:
            others.append(relative)
            continue
        case = found.setdefault(match["case"], {})
        sample = match.groupdict().get("sample", "")
        kept = case.setdefault(sample, path)
        case[sample] = min(kept, path, key=lambda p: _SUFFIXES.index(_suffix(p)))
    if not found:
        hint = f"; there is {others[0]}, say by --pattern what in it" if others else ""
        hint += " is {case} and what {sample}" if others else ""
        hint += ", or '{case}' of files of all samples" if others else ""
        raise InputError(
            f"{root}: no .nii.gz, .nii, .npz or .npy fits {pattern!r}{hint}"
        )
    if pattern == DEFAULT_PATTERN and all(_LIKE_SAMPLES.fullmatch(c) for c in found):
        first = natural_order(found)[0]
        raise InputError(
            f"{root}: folders such as {first} look like samples, not cases; say "
            "--pattern '*{sample}/{case}', or --pattern '{case}/{sample}*' if they "
            "are cases"
        )
    return {
        case: [found[case][sample] for sample in natural_order(found[case])]
        for case in natural_order(found)
    }


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\{case\}|\{sample\}|\*)", pattern)
    names = sorted(p for p in parts if p[:1] == "{")
    if names not in (["{case}"], ["{case}", "{sample}"]):
        raise InputError(
            f"pattern {pattern!r} must hold {{case}} and {{sample}} once each, e.g. "
            "'fold_{sample}/{case}', or {case} alone, where a file has all samples"
        )
    special = {
        "{case}": r"(?P<case>[^/]+)",
        "{sample}": r"(?P<sample>[^/]+)",
        "*": "[^/]*",
    }
    text = "".join(special.get(part, re.escape(part)) for part in parts)
    if not pattern.endswith(_SUFFIXES):
        text += "(?:" + "|".join(map(re.escape, _SUFFIXES)) + ")"
    return re.compile(text)


def _files(root: Path, depth: int) -> list[Path]:
    """Returns files with a known suffix, without hidden ones, pipes and devices.

    One folder deeper than the pattern: an example for the message when nothing fits.
    """
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        level = len(Path(folder).relative_to(root).parts)
        folders[:] = [f for f in sorted(folders) if f[0] != "." and level <= depth]
        found += [
            Path(folder) / f
            for f in sorted(files)
            if f[0] != "." and f.endswith(_SUFFIXES) and Path(folder, f).is_file()
        ]
    return found


def _suffix(path: Path) -> str:
    return next(s for s in _SUFFIXES if path.name.endswith(s))
