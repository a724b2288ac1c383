"""What `predict` says to bad input, as a Markdown table.

python benchmarks/bad_input.py --run runs/demo

Writes a folder of one good scan and many bad ones, reviews them in one command, then
tries outputs that cannot be written. The full disk is a tmpfs of 1 MB, so that line
needs the right to mount and is left out without it.
"""

import argparse
import csv
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.data.phantom import draw_cohort
from unc_jax.errors import printable

_CT = "1.2.840.10008.5.1.4.1.1.2"
_ROOT = Path(__file__).parents[1]


def write_scans(folder: Path, good: Path) -> dict[str, str]:
    """Writes bad scans made from a good one; file name -> what is wrong with it."""
    image = nib.load(good)
    array, affine = np.asarray(image.dataobj), image.affine
    content = good.read_bytes()
    wrong: dict[str, str] = {}

    def save(name: str, what: str, values: np.ndarray, to=affine) -> None:
        nib.save(nib.Nifti1Image(values, to), folder / name)
        wrong[name] = what

    def put(name: str, what: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        wrong[name] = what

    save("good.nii.gz", "nothing", array)
    put("truncated.nii.gz", "truncated", content[: len(content) // 2])
    broken = bytearray(content)
    broken[-6] ^= 1
    put("checksum.nii.gz", "wrong checksum of gzip", bytes(broken))
    put("text.nii.gz", "not NIfTI", b"hello")
    put("empty.nii.gz", "no byte", b"")
    save("complex.nii.gz", "complex numbers", array.astype(np.complex64))
    save("rgb.nii.gz", "colours", _colours(array))
    save("fourd.nii.gz", "4-D", np.stack([array, array], -1))
    save("twod.nii.gz", "2-D", array[:, :, 5])
    save("no_geometry.nii.gz", "no header geometry", array, None)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]]
    save("oblique.nii.gz", "oblique by 20 degrees", array, turn @ affine)
    holed = array.astype(np.float32)
    holed[3, 3, 3] = np.nan
    save("nan.nii.gz", "a NaN voxel", holed)
    save("tiny.nii.gz", "2 x 2 x 2 voxels", array[:2, :2, :2])
    save("constant.nii.gz", "one value everywhere", np.full_like(array, 50))
    grey = ((array + 1000) / 16).clip(0, 255).astype(np.uint8)
    save("not_ct.nii.gz", "0 to 255 instead of HU", grey)
    save("cases.csv.nii.gz", "named as the table of the output", array)
    save("\x1b[31mred.nii.gz", "a terminal's escape in its name", array)
    put(os.fsdecode(b"caf\xe9.nii.gz"), "a name that is no UTF-8", content)
    turned = nib.Nifti1Image(array, affine)
    turned.set_sform(affine, 1)
    turned.set_qform(np.diag([-1, 1, 1, 1]) @ affine, 1)
    nib.save(turned, folder / "two_minds.nii.gz")
    wrong["two_minds.nii.gz"] = "sform and qform contradict each other"
    turned.set_sform(affine, 0)
    turned.header["quatern_b"], turned.header["quatern_c"] = 0, 0
    turned.header["quatern_d"] = 1.0005
    nib.save(nib.Nifti1Image(array, None, turned.header), folder / "long.nii.gz")
    wrong["long.nii.gz"] = "a quaternion a hair too long"
    save("twice.nii.gz", "name shared with twice.nii", array)
    save("twice.nii", "name shared with twice.nii.gz", array)
    save("=cmd().nii.gz", "a spreadsheet formula as name", array)
    return wrong


def write_series(folder: Path, good: Path) -> dict[str, str]:
    """Writes bad DICOM series made from a good scan; folder -> what is wrong."""
    array = np.asarray(nib.load(good).dataobj).astype(np.int16)
    wrong: dict[str, str] = {}

    def series(name: str, what: str, **options) -> Path:
        _write_slices(folder / name, array, patient=name, **options)
        wrong[name] = what
        return folder / name

    series("series", "nothing")
    tilt = np.radians(15)
    column = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
    series("tilted", "a gantry tilt of 15 degrees", ImageOrientationPatient=column)
    place = series("missing", "a slice is missing")
    (place / "0020.dcm").unlink()
    place = series("doubled", "a slice is there twice, under another name")
    shutil.copy(place / "0020.dcm", place / "copy.dcm")
    place = series("empty", "two files are empty")
    for number in (58, 59):
        (place / f"{number:04d}.dcm").write_bytes(b"")
    place = series("cut", "the last file is cut within its voxels")
    end = place / "0059.dcm"
    end.write_bytes(end.read_bytes()[:9000])
    series("unscaled", "RescaleSlope is empty", RescaleSlope=None)
    series("unsized", "no PixelSpacing", PixelSpacing=None)
    place = series("scout", "a scout in the series")
    one = pydicom.dcmread(place / "0000.dcm")
    one.ImageOrientationPatient, one.SOPInstanceUID = [1, 0, 0, 0, 0, -1], "1.2.3.9"
    one.save_as(place / "scout.dcm")
    place = series("dose", "a dose beside it")
    one.SOPClassUID = pydicom.uid.RTDoseStorage
    one.save_as(place / "dose.dcm")
    place = series("coded", "JPEG 2000 that codes 60000 x 60000 voxels in one slice")
    one = pydicom.dcmread(place / "0020.dcm")
    one.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    sizes = struct.pack(">8I", 60000, 60000, 0, 0, 60000, 60000, 0, 0)
    frame = b"\xff\x4f\xff\x51\0\x29\0\0" + sizes + b"\0\1\x0f\1\1"
    one.PixelData = pydicom.encaps.encapsulate([frame])
    one.save_as(place / "0020.dcm")
    place = series("runs", "RLE of 60 MB that would unpack to 4 GB in one slice")
    one = pydicom.dcmread(place / "0020.dcm")
    one.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless
    head = struct.pack("<16L", 2, 64, 64 + 30 * 2**20, *[0] * 13)
    one.PixelData = pydicom.encaps.encapsulate([head + b"\x81\0" * (30 * 2**20)])
    one.save_as(place / "0020.dcm")
    series("enhanced", "many frames in a file", SOPClassUID=f"{_CT}.1")
    return wrong


def _write_slices(folder: Path, array: np.ndarray, patient: str, **changes) -> None:
    folder.mkdir()
    for number in range(array.shape[2]):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = _CT
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 10}"
        one = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = _CT, meta.MediaStorageSOPInstanceUID
        one.PatientID, one.StudyInstanceUID, one.SeriesInstanceUID = patient, "1", "2"
        one.SeriesNumber, one.Rows, one.Columns = 1, array.shape[1], array.shape[0]
        one.PixelSpacing, one.ImageOrientationPatient = [3.7, 3.7], [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [0, 0, 4.2 * number]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        for name, value in changes.items():
            setattr(one, name, value)
        one.PixelData = array[:, :, number].T.tobytes()
        one.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def _colours(array: np.ndarray) -> np.ndarray:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return np.zeros(array.shape, kind)


def predict(run: Path, source: Path, output: Path) -> tuple[int, str]:
    """Returns the exit code, and the last line on stderr that is no progress."""
    flags = ["--run", str(run), "--input", str(source), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "unc_jax.predict", *flags],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, error_of(done.stderr)


def error_of(printed: str) -> str:
    assert "Traceback" not in printed, printed
    lines = [one for one in printed.splitlines() if one.startswith("error: ")]
    return lines[-1] if lines else ""


def flags() -> Iterator[tuple[str, int, str]]:
    """Yields mistakes in the flags of `main`, its exit code and what it says."""
    for words in (
        "--stage plan",
        "--stage plan --config",
        "--stage plan --config configs/nope.py",
        "--stage plan --config configs/demo.py:x",
        "--stage plan --config configs/demo.py --config.train.batsh=2",
        "--stage plan --config.train.batch=none --config configs/demo.py",
        "--stage plan --config configs/demo.py --config.train.batch=0",
    ):
        command = [sys.executable, "-m", "unc_jax.main", *words.split()]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
        yield f"main {words}", done.returncode, error_of(done.stderr)


def outputs(run: Path, folder: Path, good: Path) -> list[tuple[str, int, str]]:
    """Runs whole commands that cannot succeed."""
    file = folder / "file"
    file.write_text("in the way")
    dicom = folder / "dicom"
    dicom.mkdir()
    (dicom / "slice.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 64)
    (folder / "nothing").mkdir()
    tried: list[tuple[str, Callable[[], tuple[int, str]]]] = [
        ("output is a file", lambda: predict(run, good, file)),
        ("output cannot be made", lambda: predict(run, good, Path("/proc/out"))),
        ("no scan in the folder", lambda: predict(run, folder / "nothing", folder)),
        ("unreadable DICOM", lambda: predict(run, dicom, folder / "out")),
        ("no such run", lambda: predict(folder / "nothing", good, folder / "out")),
    ]
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    if mounted:
        tried.append(("full disk", lambda: predict(run, good, disk / "out")))
    try:
        return [(what, *attempt()) for what, attempt in tried]
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def table(run: Path, source: Path, output: Path, wrong: dict[str, str]) -> None:
    """Prints a line for each scan of a folder, and for all files passed over."""
    code, _ = predict(run, source, output)
    with open(output / "cases.csv", newline="") as file:
        rows = {Path(row["input"]).name: row for row in csv.DictReader(file)}
    for name, what in wrong.items():
        row = rows[printable_bytes(name)]
        said = "; ".join(filter(None, [row["status"], row["warnings"]]))
        said = said.replace(f"{source}/", "")
        print(f"| {printable(name)}: {what} | {code} | {printable(said)} |")
    passed = json.loads((output / "run.json").read_text())["passed_over"]
    for reason, paths in passed.items():
        listed = ", ".join(paths).replace(f"{source}/", "")
        print(f"| passed over: {listed} | {code} | {reason} |")


def printable_bytes(name: str) -> str:
    """Returns a file name as cases.csv has it."""
    return name.encode("utf-8", "backslashreplace").decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    run = parser.parse_args().run.resolve()
    folder = Path(tempfile.mkdtemp())
    try:
        draw_cohort.write_cohort(folder / "task", cases=1, seed=1, size=(96, 96, 64))
        good = folder / "task" / "imagesTr" / "liver_0.nii.gz"
        source = folder / "scans"
        source.mkdir()
        wrong = write_scans(source, good)
        print("| input | exit | status, warnings |\n| --- | --- | --- |")
        table(run, source, folder / "out", wrong)
        (folder / "dicom_scans").mkdir()
        series = write_series(folder / "dicom_scans", good)
        table(run, folder / "dicom_scans", folder / "dicom_out", series)
        for what, code, said in (*outputs(run, folder, good), *flags()):
            print(f"| {what} | {code} | {said.replace(str(folder), 'FOLDER')} |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
