import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from samples import probability_maps

import unc_jax
from unc_jax import __main__ as commands
from unc_jax import main, predict
from unc_jax.data import copies, nifti
from unc_jax.data.geometry import Geometry
from unc_jax.errors import InputError
from unc_jax.review import segment_scan
from unc_jax.study import case_columns, cases_table, run_folder
from unc_jax.uncertainty.measures import MEASURES
from unc_jax.uncertainty.prediction import reduce_samples

ROOT = Path(__file__).parents[1]
GRID = Geometry((6, 5, 7), np.diag([1.5, 1.0, 2.0, 1.0]))


def run_python(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd
    )


def test_importing_the_package_imports_no_jax():
    code = "import unc_jax, sys; print(unc_jax.__version__, 'numpy' in sys.modules)"
    assert run_python("-c", code).stdout == f"{unc_jax.__version__} False\n"


def test_all_names_are_there():
    for name in unc_jax.__all__:
        assert getattr(unc_jax, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = unc_jax.nothing


@pytest.mark.parametrize("hard", [False, True])
def test_score_is_the_command_score(tmp_path, hard):
    samples = np.random.default_rng(3).random((4, *GRID.shape)).astype(np.float32)
    samples = (samples >= 0.4).astype(np.uint8) if hard else samples
    for number, sample in enumerate(samples):
        path = tmp_path / "samples" / "case" / f"{number}.nii.gz"
        nifti.write(path, sample, GRID, sample.dtype)
    folders = ["--samples", str(tmp_path / "samples"), "--output", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        unc_jax.score.main(folders)
    assert end.value.code == 0
    (row,) = cases_table.read_rows(tmp_path / "cases.csv", case_columns.REVIEW_COLUMNS)
    found = unc_jax.score(samples)
    assert list(found) == list(MEASURES)
    for name, value in found.items():
        assert row[name] == (None if np.isnan(value) else value), name
    assert np.isnan(found["u_labelled"]) == hard


@pytest.mark.parametrize("first", ["import unc_jax.score", "from unc_jax import api"])
def test_score_can_be_called_whatever_was_imported_before(first):
    code = (
        f"{first}; import unc_jax, numpy; print(unc_jax.score(numpy.ones([2, 1, 1, 1]))"
    )
    assert "'d_pw': 1.0" in run_python("-c", f"{code})").stdout


def test_score_takes_the_half_precision_of_jax():
    samples = jnp.asarray(probability_maps(), jnp.bfloat16)
    wide = unc_jax.score(np.asarray(samples.astype(jnp.float32)))
    assert unc_jax.score(samples) == wide
    assert 0 < wide["u_labelled"] < 1


def test_masks_among_probabilities_make_masks_of_all():
    """A mask has no entropy: among probabilities it would lower the mean."""
    samples = probability_maps(n=4)
    masks = samples >= 0.5
    mixed = samples.copy()
    mixed[1] = masks[1]
    assert unc_jax.score(mixed) == pytest.approx(unc_jax.score(masks), nan_ok=True)
    assert np.isnan(unc_jax.score(mixed)["u_labelled"])
    mixed[1] = 0  # an empty sample is a mask and a probability map
    assert unc_jax.score(mixed)["u_labelled"] > 0


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.stack([1 - probability_maps(n=1)[0], probability_maps(n=1)[0]]), "softmax"),
        (probability_maps().astype(object), "object; an array of numbers"),
        (probability_maps().astype(complex), "complex64|complex128"),
        (np.ma.masked_less(probability_maps(), 0.5), "a masked array"),
        ([np.ones((2, 2, 2)), np.ones((2, 2, 3))], "samples: no array"),
        (np.ones((3, 0, 4, 4)), r"shape \(3, 0, 4, 4\)"),
    ],
)
def test_score_refuses_what_are_no_samples(samples, said):
    with pytest.raises(InputError, match=said):
        unc_jax.score(samples)


def test_masks_of_a_few_voxels_are_no_softmax():
    samples = np.zeros((5, 2, 2, 2), bool)
    samples[:3, 0, 0, 0] = True
    assert 0 < unc_jax.score(samples)["d_pw"] < 1


def test_score_takes_bool_and_lists():
    samples = np.random.default_rng(0).random((3, 4, 4, 4)) < 0.5
    assert unc_jax.score(samples) == pytest.approx(
        unc_jax.score(samples.astype(int).tolist()), nan_ok=True
    )


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (np.zeros((4, 4, 4)), "shape"),
        (np.zeros((1, 4, 4, 4)), "n >= 2"),
        (np.full((2, 4, 4, 4), 1.5), "0 ... 1"),
        (np.full((2, 4, 4, 4), np.nan), "0 ... 1"),
        (np.full((2, 4, 4, 4), 2), "0 ... 1"),
    ],
)
def test_samples_of_no_use_are_refused(samples, word):
    with pytest.raises(InputError, match=word):
        unc_jax.score(samples)


@pytest.fixture(scope="module")
def calibrated_run(tiny_run, tmp_path_factory):
    """The tiny run as if it had three times the cases, enough for a bound."""
    run = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(tiny_run, run)
    rows = cases_table.read_rows(run / "cases.csv", case_columns.EVALUATION_COLUMNS)
    rows = [
        {**row, "case": f"{row['case']}_{i}", "d_pw": (i + 1) / 4, "u_labelled": 0.1}
        for i in range(3)
        for row in rows
    ]
    cases_table.write_rows(run / "cases.csv", rows, case_columns.EVALUATION_COLUMNS)
    return run


def scan_of(split, run, task):
    """Returns the scan of the first case of a split."""
    rows = cases_table.read_rows(run / "cases.csv", case_columns.EVALUATION_COLUMNS)
    case = next(str(row["case"]) for row in rows if row["split"] == split)
    return task / "imagesTr" / f"{case.rsplit('_', 1)[0]}.nii.gz"


def test_a_training_case_under_another_name_is_leaked(calibrated_run, tiny_task):
    run = unc_jax.load_run(calibrated_run, level=0.5)
    bounded = set()
    for split in ("train", "validation", "test"):
        path = scan_of(split, calibrated_run, tiny_task)
        image = nib.load(path)
        found = run.segment(image.get_fdata(), image.affine)
        known = f"has the voxels of {path.name.split('.')[0]}, a training case of the "
        bounded |= {split} if found.dice_lower is not None else set()
        assert (f"{known}run" in found.warnings) == (split == "train")
        leaked = any("leaked" in flag for flag in found.flags)
        assert leaked == (split == "train"), found.flags
    assert bounded
    assert "train" not in bounded


def test_segment_is_the_command_predict(calibrated_run, tiny_task, tmp_path):
    tiny_run = calibrated_run
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    scan = scan_of("validation", calibrated_run, tiny_task)
    argv = ["--run", str(tiny_run), "--input", str(scan), "--output", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        predict.main([*argv, "--level", "0.5"])  # what three calibration cases support
    assert end.value.code == 0
    (row,) = cases_table.read_rows(tmp_path / "cases.csv", case_columns.REVIEW_COLUMNS)

    image = nib.load(scan)
    run = unc_jax.load_run(tiny_run, level=0.5)
    found = run.segment(image.get_fdata(), image.affine)
    for name in MEASURES:
        value = np.nan if row[name] is None else row[name]
        assert found.measures[name] == pytest.approx(value, rel=1e-6, nan_ok=True)
    for name in ("predicted_dice", "dice_lower"):
        assert getattr(found, name) == pytest.approx(row[name], rel=1e-6), name
    assert "; ".join(found.flags) == row["reason"]
    assert "; ".join(found.warnings) == row["warnings"]
    folder = tmp_path / row["case"]
    for name in ("mask", "mean", "uncertainty"):
        written = nib.load(folder / f"{name}.nii.gz").get_fdata()
        # Files hold whole 1/1024.
        np.testing.assert_allclose(getattr(found, name), written, atol=1 / 1024)
    np.testing.assert_array_equal(found.mask, found.mean >= 0.5)
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def predicted(capsys, run, tmp_path, *flags):
    """Exit code and what `predict` says of a scan that nobody can read."""
    (tmp_path / "scan.nii.gz").write_bytes(b"no scan")
    argv = ["--run", run, "--input", tmp_path / "scan.nii.gz"]
    argv += ["--output", tmp_path / "out", "--level", "0.5", *flags]
    with pytest.raises(SystemExit) as end:
        predict.main(list(map(str, argv)))
    return end.value.code, capsys.readouterr().err


def test_bounds_are_of_masks_that_were_made_alike(calibrated_run, tmp_path, capsys):
    code, words = predicted(capsys, calibrated_run, tmp_path)
    assert (code, "Lower bounds of Dice hold at level 0.5" in words) == (4, True)
    flag = "--largest-component"
    code, words = predicted(capsys, calibrated_run, tmp_path, flag)
    assert (code, "No lower bounds of Dice: the calib" in words) == (4, True)


def test_cases_of_other_samples_calibrate_no_run(calibrated_run, tmp_path, capsys):
    columns = case_columns.EVALUATION_COLUMNS
    rows = cases_table.read_rows(calibrated_run / "cases.csv", columns)
    known = [
        {**r, "case": f"own_{r['case']}", "n_samples": 77, "split": ""} for r in rows
    ]
    cases_table.write_rows(tmp_path / "known.csv", known, columns)
    flags = ["--calibrate", tmp_path / "known.csv"]
    code, words = predicted(capsys, calibrated_run, tmp_path, *flags)
    assert (code, "its cases have 77 samples, the run draws" in words) == (2, True)
    assert not (tmp_path / "out").exists()


def test_segment_takes_any_axis_order(tiny_run, tiny_task):
    image = nib.load(sorted((tiny_task / "imagesTr").glob("*.nii.gz"))[0])
    turned = image.as_reoriented(np.array([[2, 1], [0, -1], [1, -1]]))
    run = unc_jax.load_run(tiny_run, level=0.5)
    results = []
    for one in (image, turned):
        mean = run.segment(one.get_fdata(), one.affine).mean
        assert mean.shape == one.shape
        found = nib.as_closest_canonical(nib.Nifti1Image(mean, one.affine))
        results.append(found.get_fdata())
    np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.parametrize("scope", ["cohort", "volume"])
def test_last_bits_of_a_scan_decide_nothing(tiny_run, tiny_task, tmp_path, scope):
    """Two files of one scan differ by their rounding, as NIfTI and DICOM do."""
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    text = json.dumps({**config, "evaluate.mask_scope": scope})
    (folder / "config.json").write_text(text)
    image = nib.load(sorted((tiny_task / "imagesTr").glob("*.nii.gz"))[0])
    voxels, run = image.get_fdata(dtype=np.float32), unc_jax.load_run(folder)
    one, other = (
        run.segment(array, image.affine).measures
        for array in (voxels, np.nextafter(voxels, np.float32(np.inf)))
    )
    for name in MEASURES:
        assert one[name] == pytest.approx(other[name], rel=1e-3, nan_ok=True), name


def test_a_dicom_series_is_the_same_scan(tiny_run, tiny_task, tmp_path):
    """File format, order and company of a scan change nothing."""
    pytest.importorskip("pydicom")
    from tests.test_dicom import write_slice

    source = sorted((tiny_task / "imagesTr").glob("*.nii.gz"))[:2]
    scan = nib.as_closest_canonical(nib.load(source[0]))
    voxels, (x, y, z) = scan.get_fdata().round(), scan.header.get_zooms()
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(source[1], scans / "another.nii.gz")
    nib.save(nib.Nifti1Image(voxels, scan.affine), scans / "same.nii.gz")
    far = scan.affine @ [voxels.shape[0] - 1, voxels.shape[1] - 1, 0, 1]
    for number in range(voxels.shape[2]):
        write_slice(
            scans / f"{number}.dcm",
            voxels[::-1, ::-1, number].T,
            (-far[0], -far[1], far[2] + float(z) * number),
            PixelSpacing=[float(y), float(x)],
            RescaleSlope=1,
            RescaleIntercept=0,
        )
    argv = ["--run", str(tiny_run), "--input", str(scans), "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        predict.main(argv)
    rows = cases_table.read_rows(tmp_path / "cases.csv", case_columns.REVIEW_COLUMNS)
    by_case = {row["case"]: row for row in rows}
    of_dicom = next(row for case, row in by_case.items() if case.startswith("HCC"))
    for name in (*MEASURES, "volume_ml", "predicted_dice", "cv_se", "unlike", "flag"):
        expected = by_case["same"][name]
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=1e-4)
        assert of_dicom[name] == expected, name


@pytest.mark.parametrize(
    ("shape", "affine", "word"),
    [
        ((9, 9), np.eye(4), "shape"),
        ((9, 9, 9), np.eye(3), "affine"),
        ((9, 9, 9), np.zeros((4, 4)), "no volume"),
        ((9, 9, 9), np.diag([1, 1, 1, 2.0]), "last row"),
        ((9, 9, 9), [[1, 1, 0, 0], [0, 1e-6, 0, 0], [0, 0, 1, 0], [0] * 3 + [1]], "no"),
        ((9, 9, 9), np.full((4, 4), "a"), "the affine: <U1"),
        ((2, 9, 9), np.eye(4), "at least 8"),
    ],
)
def test_arrays_of_no_use_are_refused(tiny_run, shape, affine, word):
    with pytest.raises(InputError, match=word):
        unc_jax.load_run(tiny_run).segment(np.zeros(shape), affine)


@pytest.mark.parametrize(
    ("organ", "said"),
    [(np.full((9, 9, 9), 0.3), "a mask is needed"), (np.ones((9, 9)), "must be equal")],
)
def test_an_organ_is_a_mask_on_the_grid(tiny_run, organ, said):
    with pytest.raises(InputError, match=f"organ.* {said}"):
        unc_jax.load_run(tiny_run).segment(np.ones((9, 9, 9)), np.eye(4), organ=organ)


@pytest.mark.parametrize("level", [0, -1, 1, float("nan")])
def test_a_level_is_a_share(tiny_run, level):
    with pytest.raises(InputError, match=f"the level is {level}"):
        unc_jax.load_run(tiny_run, level=level)


def test_a_liver_run_may_find_no_liver(tiny_run):
    liver = segment_scan.build_segmenter(run_folder.open_run(tiny_run))
    tumours = liver._replace(
        preparation=liver.preparation._replace(target="tumor"),
        liver=_of_samples(liver, lambda image: np.zeros(image.shape, np.float32)),
    )
    scan = np.random.default_rng(0).normal(size=(16, 16, 8)).astype(np.float32)
    geometry = Geometry(scan.shape, np.eye(4))
    found = segment_scan.segment(scan, geometry, tumours)
    assert found.row["status"] == cases_table.NO_LIVER
    assert found.warnings[-1] == "demo found no liver"
    assert not found.mask.any()

    whole = _of_samples(liver, lambda image: np.ones(image.shape, np.float32))
    found = segment_scan.segment(scan, geometry, tumours._replace(liver=whole))
    (told,) = (one for one in found.warnings if "liver found by demo" in one)
    assert "D_pw 1.000, CV 0, U 0.000" in told

    def trained_on_scan(segmenter):
        seen = segmenter.preparation._replace(trained_on={copies.digest(scan): "a"})
        return segmenter._replace(preparation=seen)

    row = segment_scan.segment(scan, geometry, trained_on_scan(tumours)).row
    assert (row["status"], row["unlike"]) == (cases_table.NO_LIVER, "leaked")
    known = tumours._replace(liver=trained_on_scan(whole))
    found = segment_scan.segment(scan, geometry, known)
    same = "demo: has the voxels of a, a training case of the run"
    assert same in "; ".join(found.warnings)
    assert "leaked" not in found.row["unlike"]


def _of_samples(segmenter, sample):
    """The segmenter with a network that always answers `sample` of the image."""

    def predict(image, _):
        return reduce_samples([jnp.asarray(sample(image))[None] for _ in range(2)])

    return segmenter._replace(predictor=segmenter.predictor._replace(predict=predict))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such run folder"):
        unc_jax.load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_of_the_pages_runs(page, tiny_run, tiny_task, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    scan = sorted((tiny_task / "imagesTr").glob("*.nii.gz"))[0]
    (tmp_path / "scan.nii.gz").write_bytes(scan.read_bytes())
    (tmp_path / "runs").symlink_to(tiny_run.parent)
    grid = np.random.default_rng(5).random((5, *GRID.shape)) < 0.5
    for number, mask in enumerate(grid):
        path = tmp_path / f"fold_{number}" / "case.nii.gz"
        nifti.write(path, mask, GRID, np.uint8)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})


def test_the_package_lists_its_commands(capsys):
    commands.main([])
    listing = capsys.readouterr().out
    for name, (module, _) in commands.COMMANDS.items():
        assert f"  {name} " in listing
        assert (ROOT / "unc_jax" / f"{module.replace('.', '/')}.py").is_file()


def test_a_command_runs_as_under_python_m():
    called = run_python("-m", "unc_jax", "score", "--samples", "nowhere")
    assert called.returncode == 2
    assert "required: --output" in called.stderr


def test_an_unknown_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        commands.main(["scoer"])
    assert end.value.code == 2
    assert "'scoer'; commands are main, predict" in capsys.readouterr().err


def test_the_console_script_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"unc-jax": "unc_jax.__main__:main"}


@pytest.mark.parametrize("flag", ["", "--config="])
def test_configs_of_an_installed_package_are_found(flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed = (ROOT / "configs").as_posix()
    given = f"{flag}configs/hippocampus.py:whole_wcc"
    assert main._located(given) == f"{flag}{installed}/hippocampus.py:whole_wcc"
    for kept in (f"{flag}configs/mine.py", "--workdir=configs/demo.py"):
        assert main._located(kept) == kept
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "hippocampus.py").touch()
    assert main._located(given) == given
