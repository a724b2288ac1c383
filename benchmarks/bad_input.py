"""What `predict` says to bad input, as a Markdown table.

python benchmarks/bad_input.py --run runs/demo

Writes a folder of one good scan and many bad ones, reviews them in one command, then
tries outputs that cannot be written. The full disk is a tmpfs of 1 MB, so that line
needs the right to mount and is left out without it.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.data.phantom import draw_cohort

_ROOT = Path(__file__).parents[1]


def write_scans(folder: Path, good: Path) -> dict[str, str]:
    """Bad scans made from a good one; file name -> what is wrong with it."""
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
    save("twice.nii.gz", "name shared with twice.nii", array)
    save("twice.nii", "name shared with twice.nii.gz", array)
    save("=cmd().nii.gz", "a spreadsheet formula as name", array)
    return wrong


def _colours(array: np.ndarray) -> np.ndarray:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return np.zeros(array.shape, kind)


def predict(run: Path, source: Path, output: Path) -> tuple[int, str]:
    """Exit code, and the last line on stderr that is no progress."""
    flags = ["--run", str(run), "--input", str(source), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "unc_jax.predict", *flags],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
    return done.returncode, lines[-1] if lines else ""


def outputs(run: Path, folder: Path, good: Path) -> list[tuple[str, int, str]]:
    """Whole commands that cannot succeed."""
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
        code, _ = predict(run, source, folder / "out")
        with open(folder / "out" / "cases.csv", newline="") as file:
            rows = {Path(row["input"]).name: row for row in csv.DictReader(file)}
        print("| input | exit | status, warnings |\n| --- | --- | --- |")
        for name, what in wrong.items():
            row = rows[name]
            said = "; ".join(filter(None, [row["status"], row["warnings"]]))
            print(f"| {name}: {what} | {code} | {said.replace(f'{source}/', '')} |")
        for what, code, said in outputs(run, folder, good):
            print(f"| {what} | {code} | {said.replace(str(folder), 'FOLDER')} |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
