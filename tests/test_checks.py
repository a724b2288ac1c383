import numpy as np
import pytest

from unc_jax.review import checks


def ct():
    """Air around a body with a bone in it."""
    scan = np.full((16, 16, 16), -1000, np.int16)
    scan[4:12, 4:12] = 40
    scan[6, 6] = 700
    return scan


@pytest.mark.parametrize(
    ("scan", "word"),
    [
        (ct(), None),
        (ct() * 0 + 50, "hardly any air"),
        (((ct() + 1000) // 8).astype(np.uint8), "hardly any air"),
        (np.minimum(ct(), 100), "no bone"),
        (ct().astype(np.int32) * 40, "values from"),
    ],
)
def test_what_looks_like_hounsfield_units(scan, word):
    found = list(checks.intensity_warnings(scan))
    assert len(found) == (word is not None)
    assert word is None or word in found[0]


def test_spacing_outside_the_training_range():
    training = ((0.7, 0.9), (0.7, 0.9), (1.0, 5.0))
    assert not list(checks.spacing_warnings((0.8, 0.8, 5.0), training))
    assert not list(checks.spacing_warnings((0.6, 1.1, 6.2), training))
    found = list(checks.spacing_warnings((0.5, 0.8, 7.0), training))
    assert [text.split(" is ")[0] for text in found] == [
        "spacing along x",
        "spacing along z",
    ]
    assert found[1].endswith("is 7 mm, 1 to 5 mm in training")


@pytest.mark.parametrize(
    ("place", "side"),
    [
        ((0, 4, 4), "left"),
        ((7, 4, 4), "right"),
        ((4, 0, 4), "back"),
        ((4, 7, 4), "front"),
        ((4, 4, 0), "bottom"),
        ((4, 4, 7), "top"),
    ],
)
def test_a_mask_at_the_border(place, side):
    mask = np.zeros((8, 8, 8), bool)
    mask[4, 4, 4] = True
    assert not list(checks.border_warnings(mask))
    mask[place] = True
    assert list(checks.border_warnings(mask)) == [
        f"touches the scan's border ({side}): may be cut off"
    ]


def test_unlike_the_training_cases():
    ranges = {"cv": (1.0, 2.0), "d_pw": (0.8, 0.9), "volume_ml": (1000.0, 2000.0)}
    fine = {"cv": 0.5, "d_pw": 0.95, "volume_ml": 2400.0, "u_labelled": 99.0}
    assert checks.unlike(fine, ranges) == []  # better than all is no alarm
    odd = {"cv": 2.1, "d_pw": 0.79, "volume_ml": 700.0}
    assert checks.unlike(odd, ranges) == ["cv", "d_pw", "volume_ml"]
    assert checks.unlike({"cv": None}, ranges) == []
