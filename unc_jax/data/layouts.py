"""Layouts of data sets: the Decathlon's, nnU-Net's of both versions, nested folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.data.files import read_object
from unc_jax.data.nifti import ENDINGS
from unc_jax.data.split import natural_order
from unc_jax.errors import InputError

SCAN_NAMES = ("ct", "mri")  # CASE/ct.nii.gz and CASE/segmentations/liver.nii.gz


class Entry(NamedTuple):
    """A case as listed in an index, unchecked; `place` is e.g. "training[3]"."""

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


def read_index(root: Path) -> dict[str, Any]:
    """Reads `root`/dataset.json, or builds it from TotalSegmentator's nested folders.

    Raises InputError when neither exists, or the file is not a JSON object.
    """
    file = root / "dataset.json"
    if file.exists():
        return read_object(file)
    if nested := _nested(root):
        return nested
    raise InputError(
        f"{file}: no such file; give the folder of a data set, like Task03_Liver, "
        "or of CASE/ct.nii.gz beside CASE/segmentations/liver.nii.gz"
    )


def list_entries(content: dict[str, Any], file: Path) -> list[Entry]:
    """Returns the cases that an index lists; paths may have backslashes.

    Raises InputError that names `file` if it has none of the known layouts.
    """
    if isinstance(content.get("dataset"), dict):
        listed = _keyed(content["dataset"])
    elif "file_ending" in content:
        listed = _raw(content, file)
    else:
        listed = _decathlon(content, file)
    return [
        entry._replace(image=_slashed(entry.image), label=_slashed(entry.label))
        for entry in listed
    ]


def unlisted(root: Path, entries: Sequence[Entry]) -> list[Path]:
    """Returns the scans in imagesTr and imagesTs whose names no entry has, sorted.

    Hidden files are left out.
    """
    known = {str(entry.image).rpartition("/")[2] for entry in entries}
    there = [*root.glob("imagesTr/[!.]*"), *root.glob("imagesTs/[!.]*")]
    scans = [path for path in there if path.name.endswith(ENDINGS)]
    return sorted(path for path in scans if path.name not in known)


def _slashed(value: Any) -> Any:
    return value.replace("\\", "/") if isinstance(value, str) else value


def _keyed(listed: dict[str, Any]) -> Iterator[Entry]:
    """Yields the cases of nnU-Net's {"dataset": {NAME: {"images": [...], ...}}}."""
    for number, (name, pair) in enumerate(listed.items()):
        images = pair.get("images") if isinstance(pair, dict) else None
        # More images are further channels: then the list is no path, and is refused.
        one = images[0] if isinstance(images, list) and len(images) == 1 else images
        label = pair.get("label") if isinstance(pair, dict) else None
        yield Entry(f"training[{number}]", name, one, label)


def _decathlon(content: dict[str, Any], file: Path) -> Iterator[Entry]:
    for part in ("training", "test"):
        listed = content.get(part, [])
        if not isinstance(listed, list) or (part == "training" and not listed):
            raise InputError(f'{file}: has no "{part}" list of cases')
        for i, item in enumerate(listed):
            pair = item if isinstance(item, dict) else {"image": item}
            image, label = _slashed(pair.get("image")), pair.get("label")
            name, image = _with_channel(file.parent, image)
            yield Entry(f"{part}[{i}]", name, image, label)


def _with_channel(root: Path, image: Any) -> tuple[str | None, Any]:
    """Returns id and path of NAME_0000.nii.gz, which nnU-Net 1 lists as NAME.nii.gz.

    Any other path stays, with no id of its own.
    """
    ending = next((e for e in ENDINGS if str(image).endswith(e)), None)
    if not isinstance(image, str) or ending is None or "\0" in image:
        return None, image
    first = f"{image.removesuffix(ending)}_0000{ending}"
    try:
        there, with_channel = (root / image).exists(), (root / first).exists()
    except OSError:  # a name that is too long
        return None, image
    if there or not with_channel:
        return None, image
    return image.removesuffix(ending).rpartition("/")[2], first


def _raw(content: dict[str, Any], file: Path) -> Iterator[Entry]:
    """Yields the cases of nnU-Net's folders imagesTr, labelsTr and imagesTs."""
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
    for i, n in enumerate(training):
        label = f"labelsTr/{n}{ending}"
        yield Entry(f"training[{i}]", n, f"imagesTr/{n}{image}", label)
    for i, n in enumerate(natural_order(names("imagesTs", image))):
        yield Entry(f"test[{i}]", n, f"imagesTs/{n}{image}", None)


def _nested(root: Path) -> dict[str, Any]:
    """Returns an index of CASE/{ct,mri}.nii.gz with CASE/segmentations/liver.nii.gz.

    A case that lacks one of the two stays in the list, so that it is reported.
    """
    scans = [path for kind in SCAN_NAMES for path in root.glob(f"*/{kind}.nii.gz")]
    labels = list(root.glob("*/segmentations/liver.nii.gz"))
    if not labels:
        return {}
    cases = {path.parent.name for path in scans}
    cases |= {path.parent.name for path in root.glob("*/segmentations")}
    listed = {}
    for case in natural_order(cases):
        images = [f"{case}/{path.name}" for path in scans if path.parent.name == case]
        listed[case] = {
            "images": images or [f"{case}/{SCAN_NAMES[0]}.nii.gz"],
            "label": f"{case}/segmentations/liver.nii.gz",
        }
    return {"labels": {"background": 0, "liver": 1}, "dataset": listed}
