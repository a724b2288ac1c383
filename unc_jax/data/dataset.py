"""Data sets in the Medical Segmentation Decathlon's format, or nnU-Net's raw one."""

import argparse
import contextlib
import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.data import files, label_names, layouts, nifti
from unc_jax.data.label_names import Names
from unc_jax.data.layouts import Entry
from unc_jax.data.nifti import ENDINGS
from unc_jax.data.parallel import READ_NS, map_cases
from unc_jax.data.verify import Checked, Problem, check_case, copy_problems, inside
from unc_jax.errors import InputError, counted, printable

_VERIFICATION = 5  # raise it when verification finds others in the same files
_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")


class Case(NamedTuple):
    """One case: its id and the files of its scan and its reference."""

    id: str
    image: Path
    label: Path | None


class Task(NamedTuple):
    """A data set's cases, and the entries that could not become one.

    Attributes:
      names: the values of each label's name.
      problems: what is wrong with the index and its training cases.
      test_problems: what is wrong with its test cases.
      unlisted: scans in imagesTr and imagesTs that the index does not name.
    """

    root: Path
    name: str
    names: Names
    training: tuple[Case, ...]
    test: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()
    test_problems: tuple[Problem, ...] = ()
    unlisted: tuple[Path, ...] = ()

    @property
    def labels(self) -> dict[int, str]:
        """Returns a name of each label value."""
        return label_names.by_value(self.names)


def read_task(root: Path) -> Task:
    """Reads `root`/dataset.json; opens no scan.

    Decathlon and nnU-Net 1: "training" lists pairs {"image", "label"}, "test" lists
    paths (or such pairs). nnU-Net 2 (it has a "file_ending"): imagesTr, imagesTs of
    NAME_0000.nii.gz and labelsTr of NAME.nii.gz, or "dataset" lists them by name.
    Without the file: CASE/{ct,mri}.nii.gz with CASE/segmentations/liver.nii.gz. A
    case's id is its name, or its image's file name without ending.
    AppleDouble files (._*) are passed over. An entry that is no path, leaves `root`
    (absolute, "..", a link), or whose id is unfit or taken becomes a `problem`, not a
    case. Raises InputError when dataset.json itself is missing or not of either form.
    """
    root = Path(root)
    file = root / "dataset.json"
    content = layouts.read_index(root)
    names = label_names.read_names(content.get("labels"), file)
    listed = layouts.list_entries(content, file)
    entries = [entry for entry in listed if not entry.is_appledouble]
    problems: list[Problem] = []
    of_test: list[Problem] = []
    ids: set[str] = set()
    training = [_case(root, e, ids, problems) for e in entries if e.is_training]
    test = [_case(root, e, ids, of_test) for e in entries if not e.is_training]
    if (expected := content.get("numTraining", len(training))) != len(training):
        cases = counted(len(training), "case")
        found = f"numTraining is {expected!a}, but it lists {cases}"
        problems.append(Problem("dataset", "warning", f"{file}: {found}"))
    if skipped := len(listed) - len(entries):
        found = f"passed over: {counted(skipped, 'AppleDouble file')} (._*)"
        problems.append(Problem("dataset", "warning", f"{root}: {found}"))
    return Task(
        root,
        str(content.get("name", root.resolve().name)),
        names,
        tuple(case for case in training if case),
        tuple(case for case in test if case),
        tuple(problems),
        tuple(of_test),
        tuple(layouts.unlisted(root, listed)),
    )


def without_test(task: Task) -> Task:
    """Returns the task without its test cases and what is wrong with them."""
    return task._replace(test=(), test_problems=())


def stem(path: Path) -> str:
    """Returns a scan's file name without its ending."""
    ending = next((e for e in ENDINGS if path.name.endswith(e)), "")
    return path.name.removesuffix(ending)


def verify(
    task: Task, on_case: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Returns every problem of the whole set, however many files are broken.

    Reads every training and test file to its end (`check_case`), large ones in several
    processes, and calls `on_case(done, total)` after each. Allowed label values are the
    keys of `task.labels`. Scans that several cases share are problems too.
    """
    found = [*task.problems, *task.test_problems]
    cases = task.training + task.test
    check = functools.partial(_check, task.names)
    voxels = nifti.largest_grid([case.image for case in cases])
    digests = {}
    results = map_cases(check, cases, voxels=voxels, voxel_ns=READ_NS)
    for done, checked in enumerate(results, start=1):
        found += checked.problems
        digests[cases[done - 1].id] = checked.digest
        if on_case:
            on_case(done, len(cases))
    return [*found, *copy_problems(digests)]


def _check(names: Names, case: Case) -> Checked:
    labels, ignored = label_names.by_value(names), label_names.ignored(names)
    return check_case(case.id, case.image, case.label, labels, ignored)


def verify_once(
    task: Task, folder: Path, on_case: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Returns what `verify` does; FOLDER/verified knows it of unchanged files."""
    cases = []
    for case in task.training + task.test:
        scans = filter(None, (case.image, case.label))
        paths = [path for scan in scans for path in nifti.files_of(scan)]
        # Of a file that is not there, verification itself says what is wrong.
        cases += [case.id, *((str(p), p.exists() and files.stamp(p)) for p in paths)]
    said = [*task.problems, *task.test_problems]
    content = [_VERIFICATION, str(task.root), task.names, said, cases]
    mark = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    record = folder / "verified" / f"{mark[:16]}.json"
    if record.exists():
        with contextlib.suppress(InputError, TypeError):  # else it is written again
            return [Problem(*entry) for entry in files.read_json(record)]
    problems = verify(task, on_case)
    files.write_json(record, problems)
    return problems


def print_problems(arguments: argparse.Namespace) -> int:
    """Prints the problems of a data set: 0 when none is an error, otherwise 2."""

    def progress(done: int, total: int) -> None:
        end = "\n" if done == total else "\r"
        line = f"checked {done} of {counted(total, 'case')}"
        print(line, end=end, file=sys.stderr, flush=True)

    task = read_task(arguments.folder)
    found = verify(task, progress if sys.stderr.isatty() else None)
    for path in task.unlisted:
        place = path.relative_to(task.root).as_posix()
        found.append(Problem(place, "warning", "is not listed in dataset.json"))
    for problem in found:
        print(f"{problem.severity:8} {problem.case}: {printable(problem.message)}")
    errors = sum(problem.severity == "error" for problem in found)
    cases = f"{len(task.training)} training and {counted(len(task.test), 'test case')}"
    listed = ", ".join(f"{value} {name}" for value, name in task.labels.items())
    print(f"labels: {printable(listed)}")
    counts = f"{counted(errors, 'error')}, {counted(len(found) - errors, 'warning')}"
    print(f"{printable(task.name)}: {cases}, {counts}")
    return 2 if errors else 0


def read_names(root: Path) -> Names:
    """Reads the values of the names of labels from `root`/dataset.json."""
    file = root / "dataset.json"
    return label_names.read_names(layouts.read_index(root).get("labels"), file)


def _case(
    root: Path, entry: Entry, ids: set[str], problems: list[Problem]
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


def main(argv: list[str] | None = None) -> None:
    """Lists what is wrong with the files of a data set."""
    from unc_jax import cli  # here: reading a data set needs none of it

    text = "Lists what is wrong with the files of a data set."
    parser = cli.Parser("unc_jax.data.dataset", text, example="data/Task03_Liver")
    parser.add_argument("folder", type=Path, help="folder with dataset.json")
    cli.run_command(print_problems, parser, argv, interrupted=cli.BEGINS_ANEW)


if __name__ == "__main__":
    main()
