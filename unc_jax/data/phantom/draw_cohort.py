"""A synthetic cohort of abdominal CT in Decathlon format, with several raters."""

import argparse
import contextlib
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from unc_jax.data import files, nifti
from unc_jax.data.parallel import map_cases
from unc_jax.data.phantom.grid import grid_of, grid_on
from unc_jax.data.phantom.mask import mask_files, read_mask
from unc_jax.data.phantom.patient import draw_patient, facts
from unc_jax.data.phantom.scanner import Scanner
from unc_jax.errors import InputError

Size = tuple[int, int, int]
_VERSION = 3  # of the drawing; a cohort of another version is not continued
_SMALLEST = 16
_USUAL = (512, 512, 250)  # the grid of most scans that are drawn without a size
_DRAW_NS = 1000  # to draw and write one voxel on one core, roughly


class PhantomCase(NamedTuple):
    """Drawn case: arrays (x, y, z) in RAS+ order; `affine` maps voxels to RAS mm."""

    image: np.ndarray  # int16, HU
    label: np.ndarray  # uint8: 0, 1 liver, 2 cancer
    raters: np.ndarray  # uint8 (raters, x, y, z), as the label
    affine: np.ndarray
    facts: dict[str, Any]


def draw_case(
    seed: int,
    index: int,
    *,
    size: Size | None = None,
    raters: int = 4,
    livers: Path | None = None,
) -> PhantomCase:
    """Draws one case, a function of its arguments alone.

    The anatomy is fixed in mm by (seed, index); `size` only says how finely it is
    sampled: the in-plane matrix, and an upper bound on slices (None: 512 x 512 and
    75..400 slices, as real scans have). `facts`: contrast phase, noise, mean HU of each
    tissue, tumours, and the width of ambiguity of the liver's edge, mm.
    Raises InputError for a size below 16, or a folder without liver masks.
    """
    size = _checked(size)
    mask = None
    if livers is not None:
        files = mask_files(livers)
        mask = read_mask(files[index % len(files)], size)
    patient = draw_patient(seed, index, mask)
    grid = grid_of(patient, size) if mask is None else grid_on(patient, mask)
    image, labels = Scanner(seed, index, patient, grid, raters, mask).scan()
    # Drawn as (z, y, x); the transpose is (x, y, z) in the order that files have.
    volumes = labels.transpose(0, 3, 2, 1)
    return PhantomCase(image.T, volumes[0], volumes[1:], grid.affine, facts(patient))


def write_cohort(
    output: Path,
    *,
    cases: int,
    seed: int,
    size: Size | None = None,
    raters: int = 4,
    livers: Path | None = None,
    on_case: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a Decathlon set of `cases` training cases; finished ones are kept.

    Beside imagesTr and labelsTr: raters/liver_N_rK.nii.gz, facts/liver_N.json and
    phantom.json, the settings. dataset.json comes last: a set without it is unfinished.
    All cores share the cases of a large cohort (`parallel`).
    `on_case(done, cases)` is called after each case that was drawn now.
    Raises InputError if the folder holds something else or a cohort of other settings.
    """
    output = Path(output)
    size = _checked(size)
    settings = {
        "version": _VERSION,
        "seed": seed,
        "size": None if size is None else list(size),
        "raters": raters,
        "livers": None if livers is None else str(livers),
    }
    _claim(output, settings)
    left = [i for i in range(cases) if not _finished(output, i, raters)]
    draw = functools.partial(
        _draw_into, output, seed, size=size, raters=raters, livers=livers
    )
    voxels = math.prod(size or _USUAL)
    for index in map_cases(draw, left, voxels=voxels, voxel_ns=_DRAW_NS):
        if on_case is not None:
            on_case(index + 1, cases)
    files.write_json(output / "dataset.json", _dataset(cases))


def _draw_into(output: Path, seed: int, index: int, **options: Any) -> int:
    _write_case(output, index, draw_case(seed, index, **options))
    return index


def _checked(size: Size | None) -> Size | None:
    if size is None:
        return None
    x, y, z = (int(n) for n in size)
    if min(x, y, z) < _SMALLEST:
        raise InputError(
            f"size {x},{y},{z}: at least {_SMALLEST} voxels along each axis"
        )
    return x, y, z


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Notes the settings, or refuses a folder that belongs to something else."""
    path = output / "phantom.json"
    if path.exists():
        with contextlib.suppress(json.JSONDecodeError):
            if json.loads(path.read_text()) == settings:
                return
        raise InputError(
            f"{path} is of a cohort with other settings; give another folder"
        )
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty and holds no synthetic cohort")
    files.write_json(path, settings)


def _name(index: int) -> str:
    return f"liver_{index}"


def _files(output: Path, index: int, raters: int) -> list[Path]:
    name = _name(index)
    return [
        output / "imagesTr" / f"{name}.nii.gz",
        output / "labelsTr" / f"{name}.nii.gz",
        *(output / "raters" / f"{name}_r{k}.nii.gz" for k in range(raters)),
        output / "facts" / f"{name}.json",
    ]


def _finished(output: Path, index: int, raters: int) -> bool:
    return all(path.is_file() for path in _files(output, index, raters))


def _write_case(output: Path, index: int, case: PhantomCase) -> None:
    geometry = _geometry(case)
    image, label, *raters, record = _files(output, index, len(case.raters))
    nifti.write(image, case.image, geometry, np.int16)
    for path, annotation in zip(
        [label, *raters], [case.label, *case.raters], strict=True
    ):
        nifti.write(path, annotation, geometry, np.uint8)
    files.write_json(record, case.facts)


def _geometry(case: PhantomCase) -> nifti.Geometry:
    """Returns the grid in the case's own axis directions."""
    codes = nib.orientations.axcodes2ornt(tuple(case.facts["orientation"]))
    shape = case.image.shape
    affine = case.affine @ nib.orientations.inv_ornt_aff(codes, shape)
    return nifti.Geometry(shape, affine)


def _dataset(cases: int) -> dict[str, Any]:
    names = [f"{_name(index)}.nii.gz" for index in range(cases)]
    return {
        "name": "Liver",
        "description": "Synthetic abdominal CT: liver and cancer segmentation",
        "reference": "drawn by unc_jax.data.phantom, see phantom.json",
        "licence": "CC0 1.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": cases,
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
            for name in names
        ],
        "test": [],
    }


def _size(text: str) -> Size:
    x, y, z = (int(part) for part in text.replace("x", ",").split(","))
    return x, y, z


def main(argv: list[str] | None = None) -> None:
    """Draws the synthetic cohort from the command line."""
    from unc_jax import cli  # here: drawing needs none of it

    parser = cli.Parser(
        "unc_jax.data.phantom",
        "Draws a synthetic cohort of abdominal CT in Decathlon format.",
        example="--output data/Task03_Liver --cases 131 --size 96,96,64",
    )
    parser.add_output()
    parser.add_argument("--cases", type=int, default=131, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--size", type=_size, help="largest grid, X,Y,Z")
    parser.add_argument("--livers", type=Path, help="folder of liver masks (nii.gz)")
    parser.add_argument("--raters", type=int, default=4, help="default %(default)s")
    cli.run_command(_draw, parser, argv)


def _draw(arguments: argparse.Namespace) -> None:
    start = time.monotonic()

    def progress(done: int, cases: int) -> None:
        left = (time.monotonic() - start) / done * (cases - done)
        print(f"case {done}/{cases}, {left:.0f} s left", flush=True)

    write_cohort(
        arguments.output,
        cases=arguments.cases,
        seed=arguments.seed,
        size=arguments.size,
        raters=arguments.raters,
        livers=arguments.livers,
        on_case=progress,
    )
