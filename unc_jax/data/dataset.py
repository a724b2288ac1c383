"""Data sets in the Medical Segmentation Decathlon's format, or nnU-Net's raw one."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.data.nifti import ENDINGS
from unc_jax.data.split import natural_order
from unc_jax.data.verify import Problem, check_case, inside
from unc_jax.errors import InputError, printable

_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")


class Case(NamedTuple):
    """One case: its id and the files of its scan and its reference."""

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
    """A case as the index lists it, unchecked; `place` is like "training[3]"."""

    place: str
    id: str | None
    image: Any
    label: Any

    @property
    def is_training(self) -> bool:
        return self.place.startswith("training")

    @property
    def is_appledouble(self) -> bool:
        return str(self.image).rpartition("/")[2].startswith("._")


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
    listed = (_nnunet if "file_ending" in content else _decathlon)(content, file)
    entries = [entry for entry in listed if not entry.is_appledouble]
    problems: list[Problem] = []
    ids: set[str] = set()
    training = [_case(root, e, ids, problems) for e in entries if e.is_training]
    test = [_case(root, e, ids, problems) for e in entries if not e.is_training]
    if (expected := content.get("numTraining", len(training))) != len(training):
        found = f"numTraining is {expected!a}, but {len(training)} cases are there"
        problems.append(Problem("dataset", "warning", f"{file}: {found}"))
    if skipped := len(listed) - len(entries):
        found = f"{skipped} AppleDouble files (._*) passed over"
        problems.append(Problem("dataset", "warning", f"{root}: {found}"))
    return Task(
        root,
        str(content.get("name", root.resolve().name)),
        labels,
        tuple(case for case in training if case),
        tuple(case for case in test if case),
        tuple(problems),
    )


def stem(path: Path) -> str:
    """Returns a scan's file name without its ending."""
    ending = next((e for e in ENDINGS if path.name.endswith(e)), "")
    return path.name.removesuffix(ending)


def verify(
    task: Task, on_case: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Returns every problem of the whole set, however many files are broken.

    Reads every training and test file to its end (`check_case`), one case at a time,
    and calls `on_case(done, total)` after each. Allowed label values are the keys of
    `task.labels`. A task without `test` (task._replace(test=())) skips those scans.
    """
    found = list(task.problems)
    cases = task.training + task.test
    for done, case in enumerate(cases, start=1):
        found += check_case(case.id, case.image, case.label, task.labels)
        if on_case:
            on_case(done, len(cases))
    return found


def print_problems(arguments: argparse.Namespace) -> int:
    """Prints the problems of a data set: 0 when none is an error, otherwise 2."""

    def progress(done: int, total: int) -> None:
        end = "\n" if done == total else "\r"
        print(f"checked {done} of {total} cases", end=end, file=sys.stderr, flush=True)

    task = read_task(arguments.folder)
    found = verify(task, progress if sys.stderr.isatty() else None)
    for problem in found:
        print(f"{problem.severity:8} {problem.case}: {printable(problem.message)}")
    errors = sum(problem.severity == "error" for problem in found)
    cases = f"{len(task.training)} training and {len(task.test)} test cases"
    counts = f"{cases}, {errors} errors, {len(found) - errors} warnings"
    print(f"{printable(task.name)}: {counts}")
    return 2 if errors else 0


def _case(
    root: Path, entry: _Entry, ids: set[str], problems: list[Problem]
) -> Case | None:
    """Returns an entry's case and notes its id; or None, and notes every problem."""
    reasons = []

    def path_of(value: Any) -> Path | None:
        try:
            return inside(root, value)
        except InputError as error:
            reasons.append(str(error))

    image = path_of(entry.image)
    label = None if entry.label is None else path_of(entry.label)
    if entry.label is None and entry.is_training:
        reasons.append("no label is given for a training case")
    name = entry.id or (stem(image) if image else entry.place)
    if image and not _ID.fullmatch(name):
        rule = "1 to 100 of A-Z a-z 0-9 . _ -, not starting with a dot"
        reasons.append(f"the case id {name!a} must be {rule}")
        name = entry.place
    if name in ids:
        reasons.append(f"the case id {name} occurs more than once")
    ids.add(name)
    place = f"{root / 'dataset.json'} {entry.place}"
    problems += [Problem(name, "error", f"{place}: {reason}") for reason in reasons]
    return None if reasons or not image else Case(name, image, label)


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


def read_labels(root: Path) -> dict[int, str]:
    """Reads the names of the label values from `root`/dataset.json."""
    return _labels(_content(root / "dataset.json"), root / "dataset.json")


def _labels(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Returns names by value, of {"1": "liver"} or nnU-Net's {"organ": [1, 2]}."""
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


def _decathlon(content: dict[str, Any], file: Path) -> list[_Entry]:
    entries = []
    for part in ("training", "test"):
        listed = content.get(part, [])
        if not isinstance(listed, list) or (part == "training" and not listed):
            raise InputError(f'{file}: has no "{part}" list of cases')
        for i, item in enumerate(listed):
            pair = item if isinstance(item, dict) else {"image": item}
            image, label = pair.get("image"), pair.get("label")
            entries.append(_Entry(f"{part}[{i}]", None, image, label))
    return entries


def _nnunet(content: dict[str, Any], file: Path) -> list[_Entry]:
    ending, channels = content["file_ending"], content.get("channel_names", {"0": ""})
    if ending not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise InputError(f"{file}: file_ending is {ending!a}; only {known} do")
    if not isinstance(channels, dict) or len(channels) != 1:
        raise InputError(f"{file}: channel_names must hold one channel, the CT")

    def names(folder: str, suffix: str) -> set[str]:
        files = file.parent.glob(f"{folder}/*{suffix}")
        return {path.name.removesuffix(suffix) for path in files}

    image = f"_0000{ending}"
    # A label without image stays in the list, so that the missing image is reported.
    training = natural_order(names("imagesTr", image) | names("labelsTr", ending))
    if not training:
        raise InputError(f"{file.parent}: holds no imagesTr/NAME{image}")
    cases = [(n, f"imagesTr/{n}{image}", f"labelsTr/{n}{ending}") for n in training]
    others = natural_order(names("imagesTs", image))
    scans = [(n, f"imagesTs/{n}{image}", None) for n in others]
    parts = (("training", cases), ("test", scans))
    return [_Entry(f"{p}[{i}]", *e) for p, part in parts for i, e in enumerate(part)]


def main(argv: list[str] | None = None) -> None:
    """Lists what is wrong with the files of a data set."""
    from unc_jax import cli  # here: reading a data set needs none of it

    text = "Lists what is wrong with the files of a data set."
    parser = cli.Parser("unc_jax.data.dataset", text, example="data/Task03_Liver")
    parser.add_argument("folder", type=Path, help="folder with dataset.json")
    cli.run_command(print_problems, parser, argv)


if __name__ == "__main__":
    main()
