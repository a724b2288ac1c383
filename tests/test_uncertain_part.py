import numpy as np
import pytest

from unc_jax.review.uncertain_part import describe_uncertainty, largest_part, thinned

SHAPE = (40, 40, 40)
MM = (5.0, 5.0, 8.0)  # 0.2 ml a voxel


@pytest.fixture
def organ():
    mask = np.zeros(SHAPE, bool)
    mask[10:30, 10:30, 10:30] = True
    return mask


def unsure(*boxes):
    array = np.zeros(SHAPE, np.float32)
    for x, y, z in boxes:
        array[slice(*x), slice(*y), slice(*z)] = 0.3
    return array


@pytest.mark.parametrize(
    ("box", "words"),
    [
        # x grows to the right, y to the front, z to the head.
        (((8, 12), (18, 22), (18, 22)), "at the border of the mask: left"),
        (((28, 32), (28, 32), (18, 22)), "at the border of the mask: right, anterior"),
        (
            ((18, 22), (11, 14), (26, 29)),
            "inside the mask: posterior, towards the head",
        ),
        (((18, 22), (18, 22), (18, 22)), "inside the mask: near its centre"),
        (
            ((18, 22), (18, 22), (2, 6)),
            "outside the mask, 12.8 cm from its centre: towards the feet",
        ),
        (((8, 32), (8, 32), (8, 32)), "at the border of the mask, on all sides"),
    ],
)
def test_where_the_largest_part_lies(organ, box, words):
    far = (0, 2), (0, 2), (0, 2)
    said = describe_uncertainty(organ, unsure(box, far), MM)
    assert said.endswith(f" ml) {words}")


def test_millilitres(organ):
    large, small = ((8, 12), (18, 22), (18, 22)), ((0, 2), (0, 2), (0, 2))
    said = describe_uncertainty(organ, unsure(large, small), MM)
    assert said.startswith("14.4 ml above 0.2, largest part (12.8 ml) ")


def test_little_uncertainty_lies_nowhere(organ):
    assert describe_uncertainty(organ, unsure() + 0.19, MM) == "none above 0.2"
    assert describe_uncertainty(organ, unsure() * np.nan, MM) == "none above 0.2"


def test_without_a_mask_there_are_no_directions(organ):
    array = unsure(((0, 10), (0, 10), (0, 10)))
    assert describe_uncertainty(organ & False, array, MM) == "200 ml above 0.2"


def test_a_large_scan_is_described_alike():
    shape = (220, 220, 220)
    mask, array = np.zeros(shape, bool), np.zeros(shape, np.float32)
    mask[50:150, 50:150, 50:150] = True
    array[140:160, 80:120, 80:120] = 0.3
    array[0, 0, 0] = array[-1, -1, -1] = 0.3
    said = describe_uncertainty(mask, array, (1, 1, 1))
    assert said == (
        "32.0 ml above 0.2, largest part (32.0 ml) at the border of the mask: right"
    )


def test_parts_touch_by_corners_and_the_first_of_equals_is_taken():
    inside = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]], bool)
    found = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    np.testing.assert_array_equal(largest_part(inside), found)
    assert not largest_part(inside & False).any()


def test_thinned_boxes_keep_their_place():
    assert thinned((slice(3, 9), slice(0, 5), slice(2, 4)))[0] == slice(3, 9, 1)
    x, *_ = thinned((slice(7, 300), slice(0, 300), slice(0, 300)))
    assert x == slice(7, 300, 2)
