"""Numbers that the paper prints."""

from collections.abc import Sequence

Line = dict[str, tuple]

# The paper's patches are 1/2 and 1/4 as wide as the volume; this is halfway.
_SMALL_BELOW = 3 / 8

# Hoebel et al., Tables 1 (liver) and 2 (tumor; its text rounds Dice to 0.52 and 0.47):
# mean Dice of test and training cases, and (rho, p) of each measure.
_PRINTED = {
    ("liver", "dice", "large"): (
        (0.89, 0.90), (-0.50, 9.5e-05), (0.81, 1.2e-13), (-0.64, 1.3e-07),
    ),
    ("liver", "dice", "small"): (
        (0.86, 0.86), (-0.28, 0.038), (0.59, 1.9e-06), (-0.50, 1.1e-04),
    ),
    ("liver", "wcc", "large"): (
        (0.94, 0.96), (-0.77, 5.4e-12), (0.89, 5.6e-20), (-0.69, 6.9e-09),
    ),
    ("liver", "wcc", "small"): (
        (0.89, 0.90), (-0.53, 3.5e-05), (0.81, 5.9e-14), (-0.73, 2.1e-10),
    ),
    ("tumor", "dice", "large"): (
        (0.53, 0.63), (-0.58, 7.4e-06), (0.68, 3.4e-08), (-0.76, 1.3e-10),
    ),
    ("tumor", "wcc", "large"): (
        (0.48, 0.61), (-0.73, 2.4e-10), (0.79, 1.1e-12), (-0.79, 1.1e-12),
    ),
}  # fmt: skip
_COLUMNS = ("dice", "cv", "d_pw", "u_labelled")
PAPER: dict[tuple[str, str, str], Line] = {
    key: dict(zip(_COLUMNS, row, strict=True)) for key, row in _PRINTED.items()
}


def patch_size(patch: Sequence[int], shape: Sequence[int]) -> str:
    """Returns which of the paper's patches is nearer, by its share of a volume's width.

    "small" is a quarter of the width, "large" a half. Without a shape it is "large".
    """
    return "small" if shape and patch[0] < _SMALL_BELOW * shape[0] else "large"
