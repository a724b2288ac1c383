import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from unc_jax.review import pictures
from unc_jax.review.slices import choose_slices, cut, surroundings

SHAPE = (40, 30, 20)
MM = (2.0, 2.0, 3.0)
ALL = (slice(0, 40), slice(0, 30), slice(0, 20))


def case(seed=0):
    """Noise in HU, a box as mask, uncertainty at one voxel and, more, far away."""
    image = np.random.default_rng(seed).normal(60, 30, SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[10:20, 8:16, 5:9] = True
    mask[12:14, 8:16, 9] = True
    uncertainty = np.zeros(SHAPE, np.float32)
    uncertainty[11, 9, 8] = 0.3
    return image, mask, uncertainty


@pytest.fixture
def drawn(tmp_path):
    """A function like `write_picture` without a path: pixels (rows, columns, 3)."""

    def draw(*arrays, **style):
        pictures.write_picture(tmp_path / "drawn.png", *arrays, **style)
        picture = Image.open(tmp_path / "drawn.png")
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)

    return draw


def colored(array, color):
    """Where the pixels have a colour, or nearly so: lines are blended a little."""
    wanted = np.array(to_rgb(color)) * 255
    return (abs(array - wanted) < 25).all(axis=-1)


def test_slices_of_most_uncertainty_and_of_most_organ():
    _, mask, uncertainty = case()
    assert choose_slices(mask, uncertainty, ALL, MM) == (8, 9, 11, 5)


def test_uncertainty_far_from_the_organ_does_not_count():
    _, mask, uncertainty = case()
    uncertainty[mask == 0] = 0.15  # everywhere, as an unsure network leaves it
    uncertainty[39, 29, 19] = 9.0
    box = surroundings(mask, None, uncertainty, (10.0, 10.0, 10.0))
    assert box == (slice(7, 23), slice(5, 19), slice(2, 13))  # 25 mm: 3 voxels
    chosen = choose_slices(mask, uncertainty, box, (10.0, 10.0, 10.0))
    # The rim of the largest cross-sections, each a box and one voxel around it.
    assert chosen == (8, 9, 11, 5)
    # The tip of the organ, where nearly all that is near is background.
    assert mask[:, :, 9].any()
    uncertainty[:, :, 9] += 0.05
    assert choose_slices(mask, uncertainty, box, (10.0, 10.0, 10.0)).axial != 9


def test_the_picture_is_of_the_organ_and_its_uncertain_part_not_of_blobs():
    shape, mm = (60, 60, 400), (5.0, 5.0, 5.0)
    mask = np.zeros(shape, bool)
    mask[20:40, 20:40, 200:220] = True
    mask[5:8, 5:8, 2:5] = True  # a blob a metre below
    uncertainty = np.zeros(shape, np.float32)
    organ = slice(15, 45), slice(15, 45), slice(195, 225)
    assert surroundings(mask, None, uncertainty, mm) == organ
    uncertainty[40:44, 20:40, 200:220] = 0.3  # beside the organ
    beside = slice(15, 49), *organ[1:]
    assert surroundings(mask, None, uncertainty, mm) == beside
    uncertainty[:, :, :100] = 0.3  # the legs: larger, but far away
    assert surroundings(mask, None, uncertainty, mm) == organ
    reference = np.roll(mask, 10, axis=1)
    both = slice(15, 45), slice(15, 55), slice(195, 225)
    assert surroundings(mask, reference, uncertainty * 0, mm) == both


def test_panels_are_wide_whatever_the_height_of_the_scan(drawn):
    image = np.full((50, 40, 300), 60, np.float32)
    mask = np.zeros(image.shape, bool)
    mask[10:30, 10:30, 140:160] = True
    shown = drawn(image, mask, image * 0, (5, 5, 5))
    upper = (shown[20:270] > 100).all(axis=-1).any(axis=0)
    for left in range(0, 4 * 272, 272):
        assert upper[left : left + 264].sum() >= 250


def test_uncertainty_outside_the_body_is_dark(drawn):
    image = np.full((60, 60, 30), -1000, np.float32)
    image[10:50, 10:50] = 50
    image[20:30, 20:40] = -850  # a lung: air, but within, up to the last slice
    mask = np.zeros(image.shape, bool)
    mask[32:45, 15:45, 10:20] = True
    unsure = np.full(image.shape, 0.15, np.float32)
    for scan in (image, np.maximum(image, -100) + 100):  # CT and MR
        shown = drawn(scan, mask, unsure, (3, 3, 3))[289:, :1080]
        for left in range(0, 4 * 272, 272):
            lit = shown[:, left : left + 264].sum(axis=-1) > 60
            assert not lit[2].any()
            assert not lit[:, 2].any()
            assert lit[80:180, 100:180].all()
    everywhere = drawn(image, mask, unsure, (3, 3, 3), is_scan=False)[289:]
    assert everywhere[2, 2].sum() > 60


def test_a_scan_from_inside_the_body_has_no_air(drawn):
    image = np.full((40, 40, 40), 300, np.float32)
    image[:10, :10, 10:30] = 0  # fluid at its edge, 3 % of it
    mask = np.zeros(image.shape, bool)
    mask[15:30, 15:30, 15:30] = True
    shown = drawn(image, mask, image * 0 + 0.15, (1, 1, 1))[289:, :264]
    assert (shown.sum(axis=-1) > 60).all()


def test_the_locator_shows_what_is_cut_of_the_scan(drawn):
    image = np.full((50, 40, 300), 60, np.float32)
    mask = np.zeros(image.shape, bool)
    mask[20:30, 10:30, 250:260] = True
    beside = drawn(image, mask, image * 0, (5, 5, 5))[17:281, 4 * 272 :]
    outline = np.flatnonzero(colored(beside, pictures.MASK_COLOR).any(axis=1))
    assert 33 < outline[0] < outline[-1] < 50  # a sixth below the head


def test_large_volumes_are_looked_at_sparsely():
    mask = np.zeros((300, 300, 200), bool)
    mask[100:200, 100:200, 50:100] = True
    uncertainty = np.where(mask, np.float32(0.01), np.float32(0))
    uncertainty[150:160, :, :] *= 9
    chosen = choose_slices(
        mask, uncertainty, tuple(map(slice, [0] * 3, mask.shape)), MM
    )
    assert 150 <= chosen.sagittal < 160
    assert 50 <= chosen.largest < 100


def test_without_uncertainty_the_largest_organ_is_shown():
    _, mask, uncertainty = case()
    assert choose_slices(mask, uncertainty * 0, ALL, MM) == (5, 8, 12, 5)
    assert choose_slices(mask, uncertainty * np.nan, ALL, MM) == (5, 8, 12, 5)


def test_an_empty_mask_shows_the_reference_or_the_middle():
    _, mask, uncertainty = case()
    empty = np.zeros_like(mask)
    assert surroundings(empty, None, uncertainty * 0, MM) == ALL
    around = surroundings(empty, None, uncertainty, (30.0, 30.0, 30.0))
    assert around == (slice(10, 13), slice(8, 11), slice(7, 10))  # its 0.3
    assert choose_slices(empty, uncertainty, ALL, MM)[:3] == (8, 9, 11)
    assert choose_slices(empty, uncertainty * 0, ALL, MM) == (10, 15, 20, 10)
    shown = choose_slices(empty, uncertainty * 0, ALL, MM, reference=mask)
    assert shown == choose_slices(mask, uncertainty * 0, ALL, MM)


@pytest.mark.parametrize(
    ("view", "bright"),
    [
        # The patient's right and front on the left, front and head up.
        ("axial", {"left": (39, 15, 10), "top": (20, 29, 10)}),
        ("coronal", {"left": (39, 15, 10), "top": (20, 15, 19)}),
        ("sagittal", {"left": (20, 29, 10), "top": (20, 15, 19)}),
    ],
)
def test_radiological_order(view, bright):
    index = {"axial": 10, "coronal": 15, "sagittal": 20}[view]
    for side, voxel in bright.items():
        volume = np.zeros(SHAPE)
        volume[voxel] = 1
        row, column = np.argwhere(cut(volume, view, index, ALL))[0]
        assert (column if side == "left" else row) == 0


def test_picture_shows_contours_in_their_own_colours(drawn):
    image, mask, uncertainty = case()
    plain = drawn(image, mask, uncertainty, MM)
    assert colored(plain, pictures.MASK_COLOR).sum() > 200
    assert not colored(plain, pictures.REFERENCE_COLOR).any()
    reference = np.roll(mask, 5, axis=0)
    both = drawn(image, mask, uncertainty, MM, reference=reference)
    assert colored(both, pictures.REFERENCE_COLOR).sum() > 100


def test_a_mask_that_leaves_the_scan_is_outlined_along_its_edge(drawn):
    image, _, uncertainty = case()
    shown = drawn(image, np.ones(SHAPE, bool), uncertainty, MM)
    outline = shown[..., 2] - shown[..., 0] > 80  # blue, however blended
    # An axial panel's left and right edge: 80 mm of width, 60 of height.
    for edge in (outline[400:, :3], outline[400:, 261:264]):
        assert edge.any(axis=1).sum() > 100


def test_one_colour_means_one_uncertainty(drawn):
    image, mask, _ = case()
    brightest = "#fcffa4"  # the top of the colour bar
    for volume in (mask, np.ones(SHAPE)):
        high = np.where(volume, pictures.MAX_UNCERTAINTY, 0).astype(np.float32)
        shown = drawn(image * 0 - 500, mask, high, MM)
        assert colored(shown, brightest).sum() > 500
    half = drawn(image * 0 - 500, mask, high / 2, MM)
    assert colored(half, brightest).sum() < 100  # the bar only


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_any_type_and_broken_values(drawn, dtype):
    image, mask, uncertainty = case()
    image, uncertainty = image.astype(dtype), uncertainty.copy()
    if dtype is np.float32:
        image[5] = np.nan
        uncertainty[11, 9] = np.inf
    drawn(image, mask.astype(np.uint8) * 2, uncertainty, MM)


@pytest.mark.parametrize("shape", [(8, 8, 8), (1, 1, 1), (200, 150, 3), (9, 400, 60)])
def test_size_is_bounded_whatever_the_volume(drawn, tmp_path, shape):
    image = np.random.default_rng(0).normal(60, 50, shape)
    mask = np.random.default_rng(1).random(shape) < 0.5
    uncertainty = np.random.default_rng(2).random(shape) / 3
    shown = drawn(image, mask, uncertainty, (1.0, 1.0, 5.0))
    assert shown.shape == (553, 1184, 3)
    # Noise to the last pixel; a scan takes half of it.
    assert (tmp_path / "drawn.png").stat().st_size < 300_000


def test_a_structure_smaller_than_a_pixel_keeps_its_contour(drawn):
    image = np.zeros((400, 400, 3), np.float32)
    mask = np.zeros(image.shape, bool)
    mask[200, 200, 1] = True
    mask[0, 0, 0] = mask[399, 399, 2] = True  # the whole field is shown
    shown = drawn(image, mask, image, (1, 1, 1))
    # Blue over black, however thin.
    assert (shown[..., 2] - shown[..., 0] > 40).any()


def test_shapes_must_agree(tmp_path):
    image, mask, uncertainty = case()
    for arrays in (
        (image, mask[1:], uncertainty),
        (image[0], mask[0], uncertainty[0]),
    ):
        with pytest.raises(ValueError, match="shapes differ"):
            pictures.write_picture(tmp_path / "a.png", *arrays, (1, 1, 1))
    assert not list(tmp_path.iterdir())


def test_the_same_case_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        pictures.write_picture(tmp_path / "new" / name, *case(), (2, 2, 3))
    first, second = sorted((tmp_path / "new").iterdir())
    assert first.read_bytes() == second.read_bytes()
