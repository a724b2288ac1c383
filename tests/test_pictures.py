import io

import numpy as np
import pytest
from PIL import Image

from unc_jax.review import pictures
from unc_jax.review.slices import Plane, choose_slices, surroundings

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


def pixels(content):
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB")).astype(int)


def colored(array, color):
    return (array == np.array(color)).all(axis=-1)


def test_slices_of_most_uncertainty_and_of_most_organ():
    _, mask, uncertainty = case()
    assert choose_slices(mask, uncertainty, ALL, MM) == (8, 9, 11, 5)


def test_uncertainty_far_from_the_organ_does_not_count():
    _, mask, uncertainty = case()
    uncertainty[mask == 0] = 0.15  # everywhere, as an unsure network leaves it
    uncertainty[39, 29, 19] = 9.0
    box = surroundings(mask, None, (10.0, 10.0, 10.0))
    assert box == (slice(7, 23), slice(5, 19), slice(2, 13))  # 25 mm: 3 voxels
    chosen = choose_slices(mask, uncertainty, box, (10.0, 10.0, 10.0))
    # The rim of the largest cross-sections, each a box and one voxel around it.
    assert chosen == (8, 9, 11, 5)
    # The tip of the organ, where nearly all that is near is background.
    assert mask[:, :, 9].any()
    uncertainty[:, :, 9] += 0.05
    assert choose_slices(mask, uncertainty, box, (10.0, 10.0, 10.0)).axial != 9


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
    assert surroundings(empty, None, MM) == ALL
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
        row, column = np.argwhere(Plane(view, index, ALL, SHAPE).cut(volume))[0]
        assert (column if side == "left" else row) == 0


def test_picture_shows_contours_in_their_own_colours():
    image, mask, uncertainty = case()
    spacing = (2.0, 2.0, 3.0)
    plain = pixels(pictures.thumbnails(image, mask, uncertainty, spacing))
    assert colored(plain, pictures.MASK_COLOR).sum() > 200
    assert not colored(plain, pictures.REFERENCE_COLOR).any()
    reference = np.roll(mask, 5, axis=0)
    both = pictures.thumbnails(image, mask, uncertainty, spacing, reference=reference)
    assert colored(pixels(both), pictures.REFERENCE_COLOR).sum() > 100


def test_one_colour_means_one_uncertainty():
    image, mask, _ = case()
    for volume in (mask, np.ones(SHAPE)):
        high = np.where(volume, pictures.MAX_UNCERTAINTY, 0).astype(np.float32)
        shown = pixels(pictures.thumbnails(image * 0 - 500, mask, high, (2, 2, 3)))
        # The brightest of the map is the top of the colour bar in both.
        brightest = (252, 255, 164)
        assert colored(shown, brightest).sum() > 500
    half = pixels(pictures.thumbnails(image * 0 - 500, mask, high / 2, (2, 2, 3)))
    assert colored(half, brightest).sum() < 60  # the bar only


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_any_type_and_broken_values(dtype):
    image, mask, uncertainty = case()
    image, uncertainty = image.astype(dtype), uncertainty.copy()
    if dtype is np.float32:
        image[5] = np.nan
        uncertainty[11, 9] = np.inf
    pictures.thumbnails(image, mask.astype(np.uint8) * 2, uncertainty, (2, 2, 3))


@pytest.mark.parametrize("shape", [(8, 8, 8), (1, 1, 1), (200, 150, 3), (9, 400, 60)])
def test_size_is_bounded_whatever_the_volume(shape):
    image = np.random.default_rng(0).normal(60, 50, shape)
    mask = np.random.default_rng(1).random(shape) < 0.5
    uncertainty = np.random.default_rng(2).random(shape) / 3
    content = pictures.thumbnails(image, mask, uncertainty, (1.0, 1.0, 5.0))
    height, width, _ = pixels(content).shape
    assert width <= 820
    assert height <= 400
    # Noise to the last pixel; a scan takes half of it.
    assert len(content) < 150_000


def test_a_structure_smaller_than_a_pixel_keeps_its_contour():
    image = np.zeros((400, 400, 3), np.float32)
    mask = np.zeros(image.shape, bool)
    mask[200, 200, 1] = True
    mask[0, 0, 0] = mask[399, 399, 2] = True  # the whole field is shown
    shown = pixels(pictures.thumbnails(image, mask, image, (1, 1, 1)))
    assert colored(shown, pictures.MASK_COLOR).any()


def test_shapes_must_agree(tmp_path):
    image, mask, uncertainty = case()
    with pytest.raises(ValueError, match="shapes differ"):
        pictures.thumbnails(image, mask[1:], uncertainty, (1, 1, 1))
    with pytest.raises(ValueError, match="shapes differ"):
        pictures.write_picture(
            tmp_path / "a.png", image[0], mask[0], uncertainty[0], (1, 1, 1)
        )
    assert not list(tmp_path.iterdir())


def test_the_same_case_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        pictures.write_picture(tmp_path / "new" / name, *case(), (2, 2, 3))
    first, second = sorted((tmp_path / "new").iterdir())
    assert first.read_bytes() == second.read_bytes()
