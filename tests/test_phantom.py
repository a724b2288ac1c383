"""The synthetic cohort: what it promises about files, anatomy and raters."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unc_jax.data import nifti
from unc_jax.data.phantom import draw_cohort
from unc_jax.data.phantom.ambiguity import Ambiguity, Zone
from unc_jax.data.phantom.field import SmoothField, generator
from unc_jax.data.phantom.lesion import tumour_count
from unc_jax.data.phantom.patient import draw_patient
from unc_jax.data.phantom.raters import Rater
from unc_jax.data.phantom.shape import Points, Segment, ellipsoid, tube
from unc_jax.errors import InputError

SIZE = (48, 48, 48)


def _points(*triples: tuple[float, float, float]) -> Points:
    return Points(*np.array(triples, np.float32).T)


def _voxel_ml(case: draw_cohort.PhantomCase) -> float:
    return abs(float(np.linalg.det(case.affine[:3, :3]))) / 1000


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cohort") / "set"
    draw_cohort.write_cohort(output, cases=3, seed=5, size=SIZE, raters=2)
    return output


def test_ellipsoid_is_zero_on_its_surface_and_signed_off_it() -> None:
    points = _points((10, 0, 0), (0, 5, 0), (0, 0, 2), (11, 0, 0), (9, 0, 0))
    d = ellipsoid(points, (0.0, 0.0, 0.0), (10.0, 5.0, 2.0))
    np.testing.assert_allclose(d[:3], 0, atol=1e-5)
    assert d[3] == pytest.approx(1, abs=0.15)
    assert d[4] == pytest.approx(-1, abs=0.15)


def test_tube_distance_with_tapering_radius() -> None:
    segment = Segment((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), 3.0, 1.0)
    d = tube(_points((5, 0, 0), (5, 4, 0), (-5, 0, 0), (13, 0, 0)), segment)
    np.testing.assert_allclose(d, [-2, 2, 2, 2], atol=1e-5)


def test_field_has_unit_spread_and_does_not_depend_on_the_grid() -> None:
    field = SmoothField(generator(0, "test", 0), 10.0)
    coarse = np.arange(-120.0, 120, 6)
    fine = np.arange(-120.0, 120, 3)
    values = field.on(coarse, coarse, coarse)
    assert values.std() == pytest.approx(1, abs=0.1)
    again = field.on(fine, fine, fine)[::2, ::2, ::2]
    np.testing.assert_allclose(values, again, atol=1e-5)


def test_same_arguments_same_case_other_seed_or_index_another() -> None:
    first, again = (draw_cohort.draw_case(1, 2, size=SIZE) for _ in range(2))
    for a, b in zip(first[:4], again[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.facts == again.facts
    for seed, index in ((1, 3), (2, 2)):
        other = draw_cohort.draw_case(seed, index, size=(16, 16, 16))
        assert other.facts["noise_hu"] != first.facts["noise_hu"]


def test_a_case_does_not_depend_on_how_many_are_written(
    cohort: Path, tmp_path: Path
) -> None:
    draw_cohort.write_cohort(tmp_path / "b", cases=1, seed=5, size=SIZE, raters=2)
    for name in ("imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz"):
        assert (cohort / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_format_is_decathlon(cohort: Path) -> None:
    task = json.loads((cohort / "dataset.json").read_text())
    assert task["labels"] == {"0": "background", "1": "liver", "2": "cancer"}
    assert task["modality"] == {"0": "CT"}
    assert task["tensorImageSize"] == "3D"
    assert (task["numTraining"], task["numTest"], task["test"]) == (3, 0, [])
    assert len(task["training"]) == 3
    for index, entry in enumerate(task["training"]):
        image, label = (
            nib.load(cohort / entry["image"]),
            nib.load(cohort / entry["label"]),
        )
        assert entry["image"] == f"./imagesTr/liver_{index}.nii.gz"
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        assert image.shape[:2] == (48, 48)
        assert image.shape[2] <= 48
        np.testing.assert_array_equal(image.affine, label.affine)
        facts = json.loads((cohort / f"facts/liver_{index}.json").read_text())
        assert "".join(nib.aff2axcodes(image.affine)) == facts["orientation"]
        assert set(np.unique(label.dataobj)) <= {0, 1, 2}


def test_files_hold_the_drawn_arrays_in_their_orientation(cohort: Path) -> None:
    for index in range(3):
        case = draw_cohort.draw_case(5, index, size=SIZE, raters=2)
        scan = nifti.read(cohort / f"imagesTr/liver_{index}.nii.gz")
        np.testing.assert_array_equal(scan.array, case.image)
        np.testing.assert_allclose(
            scan.geometry.canonical_affine, case.affine, atol=1e-3
        )
        drawn = [nifti.read(cohort / f"labelsTr/liver_{index}.nii.gz").array]
        for k in range(2):
            drawn.append(nifti.read(cohort / f"raters/liver_{index}_r{k}.nii.gz").array)
        np.testing.assert_array_equal(drawn[0], case.label)
        np.testing.assert_array_equal(np.stack(drawn[1:]), case.raters)


def test_orientations_are_mixed() -> None:
    seen = {draw_patient(0, index).protocol.orientation for index in range(30)}
    assert seen == {"LAS", "LPS", "RAS"}


def test_a_tenth_is_tumour_free_and_the_rest_has_up_to_nine() -> None:
    counts = np.array([tumour_count(seed, i) for seed in range(20) for i in range(131)])
    assert np.mean(counts == 0) == pytest.approx(0.1, abs=0.02)
    assert counts.max() == 9
    assert np.median(counts[counts > 0]) == 3


def test_patients_are_like_those_of_the_real_set() -> None:
    patients = [draw_patient(3, index) for index in range(60)]
    volumes = np.array([patient.volume_ml for patient in patients])
    assert volumes.mean() == pytest.approx(1586, rel=0.15)
    assert 250 < volumes.std() < 600
    radii = np.array([t.radius for p in patients for t in p.tumours])
    assert radii.max() / radii.min() > 8
    assert min(t.contrast_hu for p in patients for t in p.tumours) < 0
    assert max(t.contrast_hu for p in patients for t in p.tumours) > 0
    slices = np.array([patient.protocol.slices for patient in patients])
    assert slices.min() >= 75
    assert slices.max() <= 400


@pytest.mark.parametrize("index", [0, 3])
def test_another_size_shows_the_same_patient(index: int) -> None:
    small = draw_cohort.draw_case(0, index, size=(64, 64, 48))
    large = draw_cohort.draw_case(0, index, size=(96, 96, 80))
    assert small.facts == large.facts
    volumes = [
        _voxel_ml(case) * float((case.label > 0).sum()) for case in (small, large)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.04)
    assert volumes[0] > 300
    # Both grids cover the same box: their outer edges coincide.
    for case in (small, large):
        case.affine[:3, 3] -= case.affine[:3, :3] @ np.full(3, 0.5)
    np.testing.assert_allclose(small.affine[:3, 3], large.affine[:3, 3], atol=1e-6)


def test_tissues_have_their_hu() -> None:
    case = draw_cohort.draw_case(0, 0, size=(96, 96, 64))
    hu = case.facts["hu"]
    image, liver = case.image, case.label == 1
    core = liver.copy()
    for axis in range(3):
        for step in (-2, -1, 1, 2):
            core &= np.roll(liver, step, axis)
    assert np.median(image[core]) == pytest.approx(hu["liver"], abs=6)
    deviation = np.median(np.abs(image[core] - np.median(image[core]))) * 1.4826
    assert deviation == pytest.approx(case.facts["noise_hu"], rel=0.6)
    assert 50 < hu["liver"] < 160
    fat = image[(image > -160) & (image < -60)]
    assert np.median(fat) == pytest.approx(hu["fat"], abs=8)
    assert fat.size > 0.02 * image.size
    assert np.mean(image > 300) > 0.002  # bone
    assert np.mean(image < -700) > 0.2  # air
    assert image.min() >= -2000
    assert image.max() <= 3071


def test_raters_differ_more_where_the_edge_is_less_clear() -> None:
    """Spread of the raters' offsets is the local width, on a flat wide edge."""
    patient = draw_patient(4, 0)
    patient = patient._replace(tumours=(), ambiguity=Ambiguity(1.0, (), ()))
    z, _, x = np.meshgrid(*[np.arange(-40.0, 40)] * 3, indexing="ij")
    distance = z.astype(np.float32)
    width = np.where(x < 0, np.float32(1), np.float32(4))
    heights = []
    for number in range(1, 9):
        rater = Rater(4, 0, number, patient)
        offsets = rater.field.on(*[np.arange(-40.0, 40)] * 3)
        label = rater.annotate(distance, width, [], [], offsets, patient)
        heights.append(label.sum(0))
    spread = np.std(heights, axis=0)
    clear, unclear = spread[:, :40].mean(), spread[:, 40:].mean()
    assert 0.6 < clear < 1.5
    assert 2.8 < unclear / clear < 5


def test_ambiguity_is_wider_in_its_zones() -> None:
    zone = Zone("hilum", (10.0, 0.0, 0.0), 20.0, 3.0)
    width = Ambiguity(1.0, (zone,), ()).width(
        _points((10, 0, 0), (30, 0, 0), (200, 0, 0))
    )
    np.testing.assert_allclose(width, [4, 1 + 3 / np.e, 1], rtol=1e-5)


def test_disagreement_follows_the_ambiguity_of_the_case() -> None:
    def disagreement(index: int) -> float:
        case = draw_cohort.draw_case(4, index, size=SIZE)
        return 1 - float(np.mean([_dice(case.label > 0, r > 0) for r in case.raters]))

    order = sorted(range(60), key=lambda i: draw_patient(4, i).ambiguity.base_mm)
    clear, unclear = (
        [disagreement(i) for i in part] for part in (order[:2], order[-2:])
    )
    assert np.mean(unclear) > 1.5 * np.mean(clear)
    assert 0.005 < np.mean(clear) < 0.1


def test_reference_is_one_more_plausible_annotation() -> None:
    case = draw_cohort.draw_case(0, 2, size=(64, 64, 48), raters=3)
    assert case.raters.shape == (3, *case.label.shape)
    annotations = [case.label, *case.raters]
    for a in range(4):
        for b in range(a):
            dice = _dice(annotations[a] > 0, annotations[b] > 0)
            assert 0.6 < dice < 1


@pytest.fixture
def livers(tmp_path: Path) -> Path:
    """A mask with Couinaud-like labels on an LPS grid, 3 x 3 x 4 mm."""
    x, y, z = np.meshgrid(np.arange(110), np.arange(100), np.arange(70), indexing="ij")
    inside = ((x - 40) / 30) ** 2 + ((y - 45) / 24) ** 2 + ((z - 40) / 20) ** 2 < 1
    array = np.where(inside, 1 + z // 10, 0).astype(np.uint16)
    affine = np.diag([-3.0, -3.0, 4.0, 1.0])
    affine[:3, 3] = 150, 140, -30
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "masks" / "LiTS-7.nii.gz")
    return tmp_path / "masks"


def test_real_masks_keep_grid_and_voxels(livers: Path) -> None:
    case = draw_cohort.draw_case(0, 0, livers=livers)
    source = nifti.read(livers / "LiTS-7.nii.gz")
    np.testing.assert_array_equal(case.label > 0, source.array > 0)
    np.testing.assert_allclose(case.affine, source.geometry.canonical_affine)
    assert case.facts["orientation"] == "LPS"
    assert _dice(case.label > 0, case.raters[0] > 0) < 1


def test_real_masks_keep_their_volume_on_a_coarser_grid(livers: Path) -> None:
    case = draw_cohort.draw_case(0, 0, size=(64, 64, 48), livers=livers)
    source = nifti.read(livers / "LiTS-7.nii.gz")
    volume = float((source.array > 0).sum()) * source.geometry.voxel_ml
    assert case.image.shape == (64, 64, 48)
    assert (case.label > 0).sum() * _voxel_ml(case) == pytest.approx(volume, rel=0.01)
    # The centre of the liver stays where it was in the world.
    centres = []
    for mask, affine in (
        (source.array > 0, source.geometry.canonical_affine),
        (case.label > 0, case.affine),
    ):
        centres.append((affine @ np.append(np.argwhere(mask).mean(0), 1))[:3])
    np.testing.assert_allclose(centres[0], centres[1], atol=1.0)


def test_empty_or_missing_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no liver masks"):
        draw_cohort.draw_case(0, 0, size=SIZE, livers=tmp_path)
    empty = nib.Nifti1Image(np.zeros((20, 20, 20), np.uint8), np.eye(4))
    nib.save(empty, tmp_path / "a1.nii.gz")
    with pytest.raises(InputError, match=r"a1.nii.gz: no voxel"):
        draw_cohort.draw_case(0, 0, size=SIZE, livers=tmp_path)


def test_a_lost_case_is_drawn_again_and_finished_ones_are_left(tmp_path: Path) -> None:
    output = tmp_path / "set"
    seen: list[tuple[int, int]] = []
    draw_cohort.write_cohort(output, cases=2, seed=8, size=SIZE, raters=1)
    lost, kept = (output / f"imagesTr/liver_{k}.nii.gz" for k in (0, 1))
    before, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    (output / "dataset.json").unlink()
    draw_cohort.write_cohort(
        output,
        cases=2,
        seed=8,
        size=SIZE,
        raters=1,
        on_case=lambda done, cases: seen.append((done, cases)),
    )
    assert lost.read_bytes() == before
    assert kept.stat().st_mtime_ns == stamp
    assert (output / "dataset.json").is_file()
    assert seen == [(1, 2)]


@pytest.mark.parametrize("change", [{"seed": 6}, {"size": (64, 64, 48)}, {"raters": 3}])
def test_a_folder_with_other_settings_is_refused(cohort: Path, change: dict) -> None:
    settings = {"cases": 3, "seed": 5, "size": SIZE, "raters": 2} | change
    with pytest.raises(InputError, match="other settings"):
        draw_cohort.write_cohort(cohort, **settings)


def test_command_draws_a_set_and_refuses_a_folder_of_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--cases=1", "--size=16x16x16", "--raters=1", "--output"]
    for folder in (tmp_path / "set", tmp_path):
        with pytest.raises(SystemExit) as stopped:
            draw_cohort.main([*flags, str(folder)])
        assert stopped.value.code == (0 if folder.name == "set" else 2)
    printed = capsys.readouterr()
    assert printed.out == "case 1/1, 0 s left\n"
    assert "is not empty and holds no synthetic cohort" in printed.err
    assert (tmp_path / "set" / "dataset.json").is_file()


def test_a_size_too_small_to_hold_a_body_is_refused() -> None:
    with pytest.raises(InputError, match="at least 16"):
        draw_cohort.draw_case(0, 0, size=(8, 64, 64))
