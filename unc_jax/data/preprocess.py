"""Preprocessing of scans for a network: crop, resample, window, normalise."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unc_jax.data.resampling import Box, resample


def window(image: np.ndarray, low_hu: float, high_hu: float) -> np.ndarray:
    """Returns the values clipped to low_hu ... high_hu.

    Any shape and real type; returns float32, NaN stays NaN.
    Raises ValueError unless low_hu < high_hu.
    """
    if not low_hu < high_hu:
        raise ValueError(f"window {low_hu} .. {high_hu} HU is empty")
    image = np.asarray(image)
    return np.clip(image.astype(np.float32), np.float32(low_hu), np.float32(high_hu))


def zscore(image: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Returns (image - mean) / std, float32 of any shape.

    Raises ValueError when `std` is not a positive finite number (a constant image).
    """
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise ValueError(
            f"mean {mean}, standard deviation {std}: no spread to scale by"
        )
    scaled = np.asarray(image).astype(np.float32)
    scaled -= np.float32(mean)
    scaled /= np.float32(std)
    return scaled


def select(label: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Returns the mask of labels that are among `values`, bool of the same shape."""
    mask = np.zeros_like(label, bool)
    for value in values:  # np.isin would take eight bytes per voxel
        mask |= label == value
    return mask


def bounding_box(mask: np.ndarray) -> Box:
    """Returns the smallest box of all non-zero voxels; ValueError if there are none."""
    columns = np.any(mask, axis=2)
    if not columns.any():
        raise ValueError("an empty mask has no bounding box")
    x, y = _extent(np.any(columns, 1)), _extent(np.any(columns, 0))
    return x, y, _extent(np.any(mask[x, y], (0, 1)))


def box_of(bounds: Sequence[Sequence[int]]) -> Box:
    """Returns three pairs (start, stop), as stored in JSON, as slices."""
    x, y, z = (slice(int(start), int(stop)) for start, stop in bounds)
    return x, y, z


class Prepared(NamedTuple):
    """A prepared scan: arrays of one shape, which spans `box` of the canonical scan.

    `image` float32 in HU, `target` uint8 0/1, `organ` bool.
    """

    image: np.ndarray
    target: np.ndarray
    organ: np.ndarray
    box: Box


def prepare_liver(
    image: np.ndarray,
    label: np.ndarray,
    *,
    shape: Sequence[int] = (256, 256, 256),
    window_hu: Sequence[float] = (-120.0, 240.0),
    liver_labels: Sequence[int] = (1, 2),
) -> tuple[np.ndarray, np.ndarray]:
    """Prepares a scan for the liver as the paper does: resampled whole, windowed.

    The image is interpolated linearly, the label map by nearest voxel, which creates no
    label between two others and preserves volumes on average for structures of any
    size. (Interpolating a mask and thresholding at 0.5 would erase structures thinner
    than a voxel and, on halved axes, count every tie as inside.)

    Args:
      image: (x, y, z), HU; label: whole numbers of the same shape.
      window_hu: (low, high), or empty to clip nothing (MR).
      liver_labels: label values of the liver. A scan without any has an empty target.

    Returns:
      Image float32 in HU (before any z-score) and target uint8 0/1, both of `shape`.

    Raises:
      ValueError: image and label differ in shape, or an empty window.
    """
    _check_same_shape(image, label)
    resampled = resample(image, shape, 1)
    target = select(resample(label, shape, 0), liver_labels)
    return _windowed(resampled, window_hu), target.view(np.uint8)


def prepare_tumor(
    image: np.ndarray,
    label: np.ndarray,
    *,
    shape: Sequence[int] = (284, 256, 133),
    window_hu: Sequence[float] = (-30.0, 200.0),
    outside_hu: float | None = -50.0,
    liver_labels: Sequence[int] = (1, 2),
    tumor_labels: Sequence[int] = (2,),
) -> Prepared:
    """Prepares a scan for tumours as the paper does: the liver's bounding box only.

    The box is cropped and resampled to `shape`, the image linearly, labels by nearest
    voxel (see `prepare_liver`). Then the organ is windowed, and voxels outside it are
    set to `outside_hu`. The order matters: a window applied last would raise -50 HU to
    its lower end, and masking before resampling would blur -50 HU into the organ.

    Args:
      image: (x, y, z), HU; label: whole numbers of the same shape.
      window_hu: (low, high), or empty to clip nothing (MR).
      outside_hu: value outside the organ; None takes the organ's own minimum (MR).
      liver_labels: label values of the organ, tumours included.
      tumor_labels: label values of the target; a case without any has an empty target.

    Raises:
      ValueError: no voxel of the organ (also: none left at this `shape`), image and
        label differ in shape, or an empty window.
    """
    _check_same_shape(image, label)
    box = bounding_box(select(label, liver_labels))
    labels = resample(label[box], shape, 0)
    organ = select(labels, liver_labels)
    if not organ.any():
        raise ValueError(f"no voxel of the organ is left at {tuple(shape)}")
    windowed = _windowed(resample(image[box], shape, 1), window_hu)
    outside = windowed[organ].min() if outside_hu is None else np.float32(outside_hu)
    windowed[~organ] = outside
    target = select(labels, tumor_labels).view(np.uint8)
    return Prepared(windowed, target, organ, box)


def prepare(
    image: np.ndarray,
    label: np.ndarray,
    target: str,
    *,
    shape: Sequence[int],
    window_hu: Sequence[float],
    outside_hu: float | None,
    liver_labels: Sequence[int],
    tumor_labels: Sequence[int],
) -> tuple[Prepared, "Moments"]:
    """Prepares a scan by `prepare_liver` or, for target "tumor", `prepare_tumor`.

    The moments, for normalisation, are those of all voxels; for tumours of the voxels
    inside the organ, because `outside_hu` is not a measurement.
    """
    if target == "tumor":
        prepared = prepare_tumor(
            image,
            label,
            shape=shape,
            window_hu=window_hu,
            outside_hu=outside_hu,
            liver_labels=liver_labels,
            tumor_labels=tumor_labels,
        )
        return prepared, moments(prepared.image[prepared.organ])
    windowed, liver = prepare_liver(
        image, label, shape=shape, window_hu=window_hu, liver_labels=liver_labels
    )
    x, y, z = (slice(0, size) for size in image.shape)
    return Prepared(windowed, liver, liver.view(bool), (x, y, z)), moments(windowed)


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of a set of values, in float64."""

    count: int
    mean: float
    squares: float

    @property
    def std(self) -> float:
        """Returns the population standard deviation; NaN of an empty set."""
        return float(np.sqrt(self.squares / self.count)) if self.count else float("nan")

    def merged(self, other: "Moments") -> "Moments":
        """Returns the moments of both sets together (Chan, Golub and LeVeque, 1983)."""
        count = self.count + other.count
        if not count:
            return self
        gap = other.mean - self.mean
        mean = self.mean + gap * other.count / count
        between = gap * gap * self.count * other.count / count
        return Moments(count, mean, self.squares + other.squares + between)


def moments(values: np.ndarray) -> Moments:
    """Returns the moments of all values, one slice of the first axis at a time."""
    total = Moments(0, 0.0, 0.0)
    if values.ndim == 1:
        values = values.reshape(1, -1)
    for part in values:
        if part.size:
            part = part.astype(np.float64)
            mean = float(part.mean())
            squares = float(np.square(part - mean).sum())
            total = total.merged(Moments(part.size, mean, squares))
    return total


def _extent(occupied: np.ndarray) -> slice:
    places = np.flatnonzero(occupied)
    return slice(int(places[0]), int(places[-1]) + 1)


def _windowed(image: np.ndarray, window_hu: Sequence[float]) -> np.ndarray:
    return window(image, *window_hu) if len(window_hu) else image


def _check_same_shape(image: np.ndarray, label: np.ndarray) -> None:
    if image.shape != label.shape:
        raise ValueError(f"image {image.shape} and label {label.shape} differ in shape")
