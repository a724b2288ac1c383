import numpy as np
import pytest

from unc_jax.data import copies
from unc_jax.data.nifti import Geometry
from unc_jax.review import scan_warnings
from unc_jax.review.prepare_scan import Preparation

RANGES = ((0.7, 0.9), (0.7, 0.9), (1.0, 5.0))
PREPARATION = Preparation(
    "liver", (8, 8, 8), (-100.0, 400.0), None, (1, 2), "case", 0.0, 1.0, RANGES, {}
)


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
    found = list(scan_warnings.of_intensities(scan, PREPARATION))
    assert len(found) == (word is not None)
    assert word is None or word in found[0]


def test_a_training_case_is_recognised_by_its_voxels():
    known = PREPARATION._replace(trained_on={copies.digest(ct()): "liver_3"})
    found = list(scan_warnings.of_copies(ct().astype(np.float64), known))
    assert found == ["has the voxels of liver_3, a training case of the run"]
    other = ct()
    other[0, 0, 0] += 1
    for scan in (other, ct().transpose(2, 0, 1), ct()[:, :, :15]):
        assert not list(scan_warnings.of_copies(scan, known))
    assert not list(scan_warnings.of_copies(ct(), PREPARATION))


def test_magnetic_resonance_has_no_scale():
    scan, mr = ct() * 0, PREPARATION._replace(window_hu=())
    assert not list(scan_warnings.of_intensities(scan, mr))


def spacing_warnings(*spacing_mm):
    geometry = Geometry((8, 8, 8), np.diag([*spacing_mm, 1.0]))
    return list(scan_warnings.of_geometry(geometry, PREPARATION))


def test_spacing_outside_the_training_range():
    assert not spacing_warnings(0.8, 0.8, 5.0)
    assert not spacing_warnings(0.4, 1.4, 9.0)  # up to twice as fine or as coarse
    found = spacing_warnings(0.2, 0.8, 11.0)
    assert [text.split(" is ")[0] for text in found] == [
        "spacing along x",
        "spacing along z",
    ]
    assert found[1].endswith("is 11 mm, 1 to 5 mm in training")


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
    assert not list(scan_warnings.of_border(mask))
    mask[place] = True
    assert list(scan_warnings.of_border(mask)) == [
        f"touches the scan's border ({side}): may be cut off"
    ]


def test_unlike_the_training_cases():
    ranges = {"cv": (1.0, 2.0), "d_pw": (0.8, 0.9), "volume_ml": (1000.0, 2000.0)}
    fine = {"cv": 0.5, "d_pw": 0.95, "volume_ml": 2400.0, "u_labelled": 99.0}
    assert scan_warnings.unlike(fine, ranges) == []  # better than all is no alarm
    odd = {"cv": 2.1, "d_pw": 0.79, "volume_ml": 700.0}
    assert scan_warnings.unlike(odd, ranges) == ["cv", "d_pw", "volume_ml"]
    assert scan_warnings.unlike({"cv": None}, ranges) == []


def test_a_scan_without_geometry_is_named():
    geometry = Geometry((8, 8, 8), np.diag([0.8, 0.8, 2.0, 1.0]))
    fields = {**geometry.fields, "sform_code": 0, "qform_code": 0}
    found = scan_warnings.of_geometry(
        Geometry(geometry.shape, geometry.affine, fields), PREPARATION
    )
    assert "no geometry in the header" in next(iter(found))
