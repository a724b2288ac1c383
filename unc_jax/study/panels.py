"""RUN/panels/CASE.npz: one slice of each case, for the figures."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import files
from unc_jax.errors import InputError


class Panel(NamedTuple):
    """One axial slice of a case, as the figures show it; arrays are (x, y)."""

    image: np.ndarray  # float16, as the network saw it
    reference: np.ndarray  # bool
    prediction: np.ndarray  # bool, mean probability >= 0.5
    uncertainty: np.ndarray  # float16, nats
    spacing_mm: np.ndarray  # (2,), of x and y
    z: int

    @property
    def height_to_width(self) -> float:
        width, height = self.image.shape * self.spacing_mm
        return float(height / width)


def write_panel(path: Path, panel: Panel) -> None:
    """Writes one panel as compressed .npz, atomically."""
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **panel._asdict())


def read_panel(path: Path) -> Panel:
    """Reads what `write_panel` wrote; InputError names the file."""
    try:
        *arrays, z = files.read_npz(path, Panel._fields)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{path}: is no slice of a case ({cause})") from None
    return Panel(*arrays, z=int(z))
