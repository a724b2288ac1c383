"""Surface distances against brute force, distance transforms and MONAI."""

import time

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from unc_jax.study.distances import boundary, near_boundary, surface_distances

_random = np.random.default_rng(5)


def blobs(shape=(17, 13, 11)):
    """Two ragged masks that overlap in part, and voxels of an anisotropic grid."""
    noise = [ndimage.gaussian_filter(_random.normal(size=shape), 1.5) for _ in "ab"]
    noise[1] = noise[0] + _random.uniform(0.1, 1) * noise[1]
    cut = _random.uniform(0.02, 0.15)
    return *(one > cut for one in noise), tuple(_random.uniform(0.4, 6, 3))


def shell(mask):
    """Boundary voxels, one voxel and one face at a time."""
    padded = np.pad(mask, 1)
    faces = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    found = [v for v in np.argwhere(mask) if not padded[tuple((v + 1 + faces).T)].all()]
    return np.array(found)


def by_hand(one, other, spacing, tolerance):
    a, b = shell(one) * spacing, shell(other) * spacing
    apart = cdist(a, b)
    there, back = apart.min(axis=1), apart.min(axis=0)
    near = (there <= tolerance).sum() + (back <= tolerance).sum()
    points = len(a) + len(b)
    return (
        max(np.percentile(there, 95), np.percentile(back, 95)),
        (there.sum() + back.sum()) / points,
        near / points,
    )


def test_fifty_pairs_against_every_pair_of_voxels():
    seen = 0
    for _ in range(50):
        one, other, spacing = blobs()
        assert one.any()
        assert other.any()
        found = surface_distances(one, other, spacing, tolerance_mm=1.7)
        assert found == pytest.approx(by_hand(one, other, spacing, 1.7), rel=1e-9)
        seen += 0 < found.nsd < 1
        # The order of the masks, and of their voxels in memory, changes nothing.
        back = surface_distances(
            np.asfortranarray(other), one, spacing, tolerance_mm=1.7
        )
        assert back == pytest.approx(found, rel=1e-12)
    assert seen > 40


def test_a_distance_transform_says_the_same():
    one, other, spacing = blobs((40, 40, 30))
    maps = [ndimage.distance_transform_edt(~boundary(m), spacing) for m in (other, one)]
    there, back = (d[boundary(m)] for d, m in zip(maps, (one, other), strict=True))
    found = surface_distances(one, other, spacing, tolerance_mm=2)
    assert found.hd95_mm == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95))
    )
    assert found.asd_mm == pytest.approx(np.concatenate([there, back]).mean())


def test_two_planes_three_millimetres_apart():
    """A tolerance of the distance itself counts, whatever float32 made of it."""
    one, other = np.zeros((2, 8, 9, 10), bool)
    one[:, :, 2], other[:, :, 3] = True, True
    spacing = (1.0, 1.0, float(np.float32(2.7)))  # a hair more than 2.7
    assert surface_distances(one, other, spacing, tolerance_mm=2.7) == pytest.approx(
        (2.7, 2.7, 1.0)
    )
    assert surface_distances(one, other, spacing, tolerance_mm=2.69).nsd == 0


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((0, 0), (np.nan,) * 3), ((2, 0), (np.nan, np.nan, 0)), ((2, 2), (0, 0, 1))],
)
def test_empty_and_equal_masks(sizes, expected):
    masks = np.zeros((2, 5, 5, 5), np.uint8)
    for mask, size in zip(masks, sizes, strict=True):
        mask[:size, 1:3, 1:3] = 1
    found = surface_distances(*masks, (1, 2, 3), tolerance_mm=2)
    np.testing.assert_equal(tuple(found), expected)
    np.testing.assert_equal(
        tuple(surface_distances(*masks[::-1], (1, 2, 3), tolerance_mm=2)), expected
    )


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="different shapes"):
        surface_distances(
            np.ones((2, 3, 4)), np.ones((2, 4, 3)), (1, 1, 1), tolerance_mm=2
        )


@pytest.mark.filterwarnings("ignore::FutureWarning")  # from within MONAI
def test_monai_says_the_same():
    torch = pytest.importorskip("torch")
    monai_metrics = pytest.importorskip("monai.metrics")
    one, other, spacing = blobs()
    pair = [
        torch.as_tensor(np.pad(m, 1)[None, None].astype(np.float32))
        for m in (one, other)
    ]
    same = {"include_background": True, "spacing": spacing}
    expected = (
        monai_metrics.compute_hausdorff_distance(*pair, percentile=95, **same),
        monai_metrics.compute_average_surface_distance(*pair, symmetric=True, **same),
        monai_metrics.compute_surface_dice(*pair, [2.0], **same),
    )
    found = surface_distances(one, other, spacing, tolerance_mm=2)
    assert found == pytest.approx([float(e.item()) for e in expected], rel=1e-5)


def test_a_liver_of_a_fine_scan_takes_no_second():
    x, y, z = (one.astype(np.float32) for one in np.ogrid[:512, :512, :400])

    def ellipsoid(shift, size):
        places = (x - 190 - shift) / 110, (y - 250) / 90, (z - 200) / 80
        return sum((one / size) ** 2 for one in places) < 1

    one, other = ellipsoid(0, 1), ellipsoid(3, 0.98)  # 1.6 l at 0.7 x 0.7 x 1 mm
    started = time.process_time()
    found = surface_distances(one, other, (0.7, 0.7, 1.0), tolerance_mm=2)
    # 0.4 s; a distance transform of the box takes 10. Half of the bound is for others.
    assert time.process_time() - started < 2
    assert 0.7 < found.asd_mm < found.hd95_mm < 5


def test_near_the_boundary_is_four_voxels_to_either_side():
    cube = np.zeros((30, 30, 30), np.uint8)
    cube[10:20, 10:20, 10:20] = 1
    near = near_boundary(cube)
    assert np.flatnonzero(near[:, 15, 15]).tolist() == [
        *range(6, 14),
        *range(16, 24),
    ]
    assert not near_boundary(np.zeros((5, 5, 5))).any()
    # What the volume cuts off is no boundary of the organ.
    assert not near_boundary(np.ones((12, 12, 12))).any()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_near_is_within_a_cube_of_both_sides(share):
    mask = np.random.default_rng(3).random((23, 7, 18)) < share
    cube = np.ones((9, 9, 9), bool)
    grown = ndimage.binary_dilation(mask, cube)
    core = ndimage.binary_erosion(mask, cube, border_value=1)
    near = near_boundary(mask)
    np.testing.assert_array_equal(near, grown & ~core)
    assert near.any()
