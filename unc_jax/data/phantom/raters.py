"""Raters of one liver, each of whom draws it a little differently."""

import numpy as np

from unc_jax.data.phantom.ambiguity import DisputedPart
from unc_jax.data.phantom.field import SmoothField, generator
from unc_jax.data.phantom.patient import Patient
from unc_jax.data.phantom.shape import Points
from unc_jax.data.phantom.slab import Window

_PITCH_MM = 22.0


class Rater:
    """Style of one person's drawing: the shifts of the edges along space.

    Number 0 is the reference annotation, of the same law as the others, except that
    it has no bias and includes what the majority would include.
    """

    def __init__(self, seed: int, index: int, number: int, patient: Patient) -> None:
        rng = generator(seed, f"rater {number}", index)
        self.bias = 0.0 if number == 0 else float(rng.normal(0, 0.45))
        self.field = SmoothField(rng, _PITCH_MM)
        self.tumour_bias = rng.normal(0, 0.6, len(patient.tumours))
        chances = rng.random(len(patient.tumours) + len(patient.ambiguity.parts))
        if number == 0:
            chances[:] = 0.5
        shares = [tumour.inclusion for tumour in patient.tumours]
        shares += [part.inclusion for part in patient.ambiguity.parts]
        included = (chances < np.array(shares)).tolist()
        self.tumours = included[: len(patient.tumours)]
        self.parts = included[len(patient.tumours) :]

    def annotate(
        self,
        liver: np.ndarray,
        width: np.ndarray,
        tumours: list[tuple[Window, np.ndarray] | None],
        planes: list[np.ndarray],
        offsets: np.ndarray,
        patient: Patient,
    ) -> np.ndarray:
        """Returns uint8 labels (z, y, x) from true signed distances, mm.

        `liver`: distance; `width`: local standard deviation of the edge; `tumours`:
        window within `liver` and distance there, None if not in these planes;
        `planes`: distance beyond each uncertain part's plane; `offsets`: this rater's
        field on the grid.
        """
        drawn = liver + width * (offsets + np.float32(self.bias))
        for beyond, kept in zip(planes, self.parts, strict=True):
            if not kept:
                drawn = np.maximum(drawn, beyond - 6 * offsets)
        label = (drawn < 0).astype(np.uint8)
        for number, found in enumerate(tumours):
            if found is None or not self.tumours[number]:
                continue
            window, distance = found
            lesion = patient.tumours[number]
            bias = np.float32(self.tumour_bias[number])
            moved = distance + np.float32(lesion.ambiguity_mm) * (
                offsets[window] + bias
            )
            # A tumour may bulge out of the liver, but is not drawn far away from it.
            bulge = drawn[window] < 0.5 * lesion.radius
            label[window][(moved < 0) & bulge] = 2
        return label


def beyond(part: DisputedPart, points: Points) -> np.ndarray:
    """Returns the distance beyond a part's plane, positive in the uncertain part."""
    x, y, z = (np.float32(n) * p for n, p in zip(part.normal, points, strict=True))
    return x + y + z - np.float32(part.offset)
