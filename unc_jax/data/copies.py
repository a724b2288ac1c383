"""Recognition of copies: scans with the same voxels, whatever their names and files."""

import hashlib
from collections.abc import Mapping

import numpy as np

_PLANES = 16  # hashed at a time: whole cache lines of arrays with z fastest in memory


def digest(array: np.ndarray) -> str:
    """Returns the SHA-256 of a scan's voxels (x, y, z) in RAS+ order, in hexadecimal.

    Equal numbers give equal digests, whatever their type and order in memory: a CT that
    was renamed, compressed or converted from DICOM keeps its digest. Fractions may
    differ in the last bit from one reader to another. The spacing is no part of it.
    Numbers are compared as float32.
    """
    total = hashlib.sha256(repr(tuple(array.shape)).encode())
    for start in range(0, array.shape[2], _PLANES):
        planes = array[:, :, start : start + _PLANES].T.astype(np.float32, order="C")
        planes += 0  # -0 becomes 0, which is equal
        total.update(planes.data)
    return total.hexdigest()


def find_copies(digests: Mapping[str, str]) -> dict[str, str]:
    """Returns, for each case with the voxels of an earlier one, the first such case.

    digests: case id -> `digest` of its scan, in order; "" is equal to none.
    """
    first: dict[str, str] = {}
    found = {}
    for case, own in digests.items():
        if own and first.setdefault(own, case) != case:
            found[case] = first[own]
    return found
