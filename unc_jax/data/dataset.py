"""Data sets in the Medical Segmentation Decathlon's format, or nnU-Net's raw one."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from unc_jax.data.split import natural_order
from unc_jax.data.verify import ENDINGS, Problem, check_case, inside
from unc_jax.errors import InputError

_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")


class Case(NamedTuple):
    id: str
    image: Path
    label: Path | None


class Task(NamedTuple):
    """A data set's cases, and the entries that could not become one (`problems`)."""

    root: Path
    name: str
    labels: dict[int, str]
    training: tuple[Case, ...]
    test: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()


class _Entry(NamedTuple):
    """What a data set says of one case, not yet believed."""

    id: str | None
    image: Any
    label: Any


def read_task(root: Path) -> Task:
    """Reads `root`/dataset.json; opens no scan.

    Decathlon: "training" lists pairs {"image", "label"}, "test" lists paths (or such
    pairs). nnU-Net v2 raw (it has a "file_ending"): imagesTr/NAME_0000.nii.gz,
    labelsTr/NAME.nii.gz, imagesTs. A case's id is its image's file name without ending.
    AppleDouble files (._*) are passed over. An entry that is no path, leaves `root`
    (absolute, "..", a link), or whose id is unfit or taken becomes a `problem`, not a
    case. Raises InputError when dataset.json itself is missing or not of either form.
    """
    root = Path(root)
    file = root / "dataset.json"
    content = _content(file)
    labels = _labels(content, file)
    if "file_ending" in content:
        listed = _nnunet_entries(content, file)
    else:
        listed = _decathlon_entries(content, file)
    training, test = ([e for e in part if not _appledouble(e)] for part in listed)
    refusals = _Refusals(root)
    cases = [refusals.sift(e, f"training[{i}]", True) for i, e in enumerate(training)]
    others = [refusals.sift(e, f"test[{i}]", False) for i, e in enumerate(test)]
    skipped = sum(map(len, listed)) - len(training) - len(test)
    expected = content.get("numTraining", len(training))
    if expected != len(training):
        found = f"numTraining is {expected!a}, but {len(training)} cases are there"
        refusals.add("dataset", "warning", f"{file}: {found}")
    if skipped:
        found = f"{skipped} AppleDouble files (._*) passed over"
        refusals.add("dataset", "warning", f"{root}: {found}")
    return Task(
        root,
        str(content.get("name", root.resolve().name)),
        labels,
        tuple(case for case in cases if case),
        tuple(case for case in others if case),
        tuple(refusals.problems),
    )


def rater_files(root: Path, case: str) -> list[Path]:
    """Lists ROOT/raters/CASE_r0.nii.gz, ..., in natural order; empty without any.

    They hold label maps of further raters on the grid of the case's own label.
    """
    names = {path.name for path in (root / "raters").glob(f"{case}_r*.nii.gz")}
    return [root / "raters" / name for name in natural_order(names)]


def verify(
    task: Task, on_case: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Every problem of the whole set, however many files are broken; see check_case.

    Reads every training and test file to its end, one case at a time, and calls
    `on_case(done, total)` after each. Allowed label values are the keys of
    `task.labels`. A task without `test` (task._replace(test=())) skips those scans.
    """
    found = list(task.problems)
    cases = task.training + task.test
    for done, case in enumerate(cases, start=1):
        found += check_case(case.id, case.image, case.label, task.labels)
        if on_case:
            on_case(done, len(cases))
    return found


def main(arguments: list[str]) -> int:
    """Prints the problems of a data set: 0 when none is an error, otherwise 2."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m unc_jax.data.dataset ROOT", file=sys.stderr)
        return 2

    def progress(done: int, total: int) -> None:
        end = "\n" if done == total else "\r"
        print(f"checked {done} of {total} cases", end=end, file=sys.stderr, flush=True)

    try:
        task = read_task(Path(arguments[0]))
        found = verify(task, progress if sys.stderr.isatty() else None)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for problem in found:
        print(f"{problem.severity:8} {problem.case}: {problem.message}")
    errors = sum(problem.severity == "error" for problem in found)
    cases = f"{len(task.training)} training and {len(task.test)} test cases"
    print(f"{task.name}: {cases}, {errors} errors, {len(found) - errors} warnings")
    return 2 if errors else 0


class _Refusals:
    """Turns entries into cases, and into problems what cannot be one."""

    def __init__(self, root: Path) -> None:
        self.problems: list[Problem] = []
        self._root = root
        self._taken: set[str] = set()

    def add(self, case: str, severity: str, message: str) -> None:
        self.problems.append(Problem(case, severity, message))

    def sift(self, entry: _Entry, where: str, labelled: bool) -> Case | None:
        """The entry's case, or None after saying everything that is wrong with it."""
        reasons, image, label = [], None, None
        try:
            image = inside(self._root, entry.image)
        except InputError as error:
            reasons.append(str(error))
        if entry.label is not None:
            try:
                label = inside(self._root, entry.label)
            except InputError as error:
                reasons.append(str(error))
        elif labelled:
            reasons.append("no label is given for a training case")
        case = entry.id or (_stem(image) if image else where)
        if image and not _ID.fullmatch(case):
            rule = "1 to 100 of A-Z a-z 0-9 . _ -, not starting with a dot"
            reasons.append(f"the case id {case!a} must be {rule}")
            case = where
        if case in self._taken:
            reasons.append(f"the case id {case} occurs more than once")
        self._taken.add(case)
        for reason in reasons:
            self.add(case, "error", f"{self._root / 'dataset.json'} {where}: {reason}")
        return None if reasons or not image else Case(case, image, label)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _appledouble(entry: _Entry) -> bool:
    return isinstance(entry.image, str) and PurePosixPath(entry.image).name[:2] == "._"


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"{file}: no such file; give the folder of a data set, like Task03_Liver"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{file}: not readable as JSON ({cause})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: must hold one JSON object")
    return content


def _labels(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Value -> name, from {"1": "liver"} or nnU-Net's {"liver": 1, "all": [1, 2]}."""
    listed = content.get("labels")
    labels: dict[int, str] = {}
    try:
        for key, value in dict(listed or {}).items():
            if isinstance(value, str):
                labels[int(key)] = value
            else:
                for number in value if isinstance(value, list) else [value]:
                    labels.setdefault(int(number), key)
    except (TypeError, ValueError):
        labels = {}
    if not labels:
        raise InputError(
            f'{file}: "labels" must map values to names, as {{"1": "liver"}}'
        )
    return labels


def _decathlon_entries(
    content: dict[str, Any], file: Path
) -> tuple[list[_Entry], list[_Entry]]:
    parts = []
    for part in ("training", "test"):
        listed = content.get(part, [])
        if not isinstance(listed, list) or (part == "training" and not listed):
            raise InputError(f'{file}: has no "{part}" list of cases')
        pairs = [e if isinstance(e, dict) else {"image": e} for e in listed]
        parts.append([_Entry(None, e.get("image"), e.get("label")) for e in pairs])
    return parts[0], parts[1]


def _nnunet_entries(
    content: dict[str, Any], file: Path
) -> tuple[list[_Entry], list[_Entry]]:
    ending, channels = content["file_ending"], content.get("channel_names", {"0": ""})
    if ending not in ENDINGS:
        raise InputError(f"{file}: file_ending is {ending!a}; only .nii.gz and .nii do")
    if not isinstance(channels, dict) or len(channels) != 1:
        raise InputError(f"{file}: channel_names must hold one channel, the CT")

    def names(folder: str, suffix: str) -> set[str]:
        files = file.parent.glob(f"{folder}/*{suffix}")
        return {path.name.removesuffix(suffix) for path in files}

    image, label = "_0000" + ending, ending
    # A label without image stays in the list, so that the missing image is reported.
    training = natural_order(names("imagesTr", image) | names("labelsTr", label))
    if not training:
        raise InputError(f"{file.parent}: holds no imagesTr/NAME{image}")
    return [
        _Entry(name, f"imagesTr/{name}{image}", f"labelsTr/{name}{label}")
        for name in training
    ], [
        _Entry(name, f"imagesTs/{name}{image}", None)
        for name in natural_order(names("imagesTs", image))
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
