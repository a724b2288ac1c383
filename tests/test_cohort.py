import gzip
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unc_jax.data import files, nifti
from unc_jax.data.cohort import open_cohort, prepare
from unc_jax.data.dataset import read_task
from unc_jax.data.prepare_case import MAX_FOREGROUND, Recipe, draw_foreground
from unc_jax.data.preprocess import box_of, moments, prepare_liver, prepare_tumor
from unc_jax.data.split import Split
from unc_jax.errors import InputError

CASES = 6
SPLIT = Split(train=("c0", "c3", "c4"), validation=("c1",), test=("c2", "c5"))
TUMOR_FREE = "c4"
TUMOR = Recipe(
    target="tumor",
    shape=(9, 8, 7),
    window_hu=(-30.0, 200.0),
    outside_hu=-50.0,
    liver_labels=(1, 2),
    tumor_labels=(2,),
    normalisation="population",
)
LIVER = TUMOR._replace(target="liver", window_hu=(-120.0, 240.0))
TO_KILL = TUMOR._replace(shape=(96, 96, 96))  # long enough in writing to be caught


def write_task(root, *, scale=1):
    """Six small scans, every second one with flipped axes and thick slices."""
    entries = []
    for index in range(CASES):
        generator = np.random.default_rng(index)
        shape = (scale * (12 + index), scale * 14, scale * (11 - index))
        image = generator.integers(-200, 300, shape, dtype=np.int16)
        label = np.zeros(shape, np.uint8)
        label[2:-3, 3 : -2 - index % 3, 1:-2] = 1
        if f"c{index}" != TUMOR_FREE:
            label[4:7, 5:8, 2:4] = 2
        label[2:4, 3:5] = 0  # the organ does not fill its box
        affine = np.diag([-0.8, -0.8, 5, 1.0] if index % 2 else [1, 1, 1, 1.0])
        names = {}
        for kind, array in (("image", image), ("label", label)):
            names[kind] = f"./{kind}sTr/c{index}.nii.gz"
            path = root / names[kind]
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), path)
        entries.append(names)
    content = {
        "name": "Small",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": CASES,
        "numTest": 0,
        "training": entries,
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def task(tmp_path):
    return read_task(write_task(tmp_path / "Task"))


def read_case(task, case_id):
    case = next(case for case in task.training if case.id == case_id)
    return nifti.read(case.image), nifti.read(case.label, labels=True)


def contents(folder):
    """Bytes of every file, without the lock and who was there."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def test_liver_cohort(task, tmp_path):
    cohort = prepare(task, SPLIT, tmp_path / "out", LIVER)
    assert cohort.ids == ("c0", "c1", "c2", "c3", "c4", "c5")
    assert cohort.split == SPLIT
    assert cohort.images.shape == cohort.labels.shape == (6, 9, 8, 7)
    assert (cohort.images.dtype, cohort.labels.dtype) == (np.float16, np.uint8)
    assert isinstance(cohort.images, np.memmap)
    expected = {
        case: prepare_liver(*(s.array for s in read_case(task, case)), shape=(9, 8, 7))
        for case in cohort.ids
    }
    train = np.stack([expected[case][0] for case in SPLIT.train])
    assert np.isclose(cohort.statistics["mean"], train.mean(dtype=float))
    assert np.isclose(cohort.statistics["std"], train.std(dtype=float))
    assert cohort.statistics["voxels"] == train.size
    for index, case in enumerate(cohort.ids):
        image = (expected[case][0] - train.mean()) / train.std()
        # Half a unit in the last place of float16.
        assert np.allclose(cohort.images[index], image, rtol=2**-11, atol=1e-5)
        assert np.array_equal(cohort.labels[index], expected[case][1])


def test_tumor_statistics_are_of_the_organ_alone(task, tmp_path):
    cohort = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    values = []
    for case in SPLIT.train:
        arrays = (scan.array for scan in read_case(task, case))
        prepared = prepare_tumor(*arrays, shape=(9, 8, 7))
        values.append(prepared.image[prepared.organ])
    values = np.concatenate(values)
    assert np.isclose(cohort.statistics["mean"], values.mean(dtype=float))
    assert np.isclose(cohort.statistics["std"], values.std(dtype=float))
    assert values.min() >= -30
    images = np.asarray(cohort.images, np.float32)
    hounsfield = images * cohort.statistics["std"] + cohort.statistics["mean"]
    assert np.isclose(hounsfield.min(), -50, atol=0.1)
    free = cohort.ids.index(TUMOR_FREE)
    assert [record["tumor_free"] for record in cohort.records].index(True) == free
    assert cohort.foreground_counts[free] == 0
    assert not cohort.labels[free].any()


def test_each_case_by_its_own_statistics(task, tmp_path):
    recipe = LIVER._replace(normalisation="case")
    cohort = prepare(task, SPLIT, tmp_path / "out", recipe)
    for image in cohort.images:
        assert np.isclose(moments(image).mean, 0, atol=1e-3)
        assert np.isclose(moments(image).std, 1, atol=1e-3)


def test_records_lead_back_to_the_scan(task, tmp_path):
    cohort = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    for case, record in zip(cohort.ids, cohort.records, strict=True):
        scan, labels = read_case(task, case)
        geometry = nifti.Geometry.from_json(record["geometry"])
        box = box_of(record["box"])
        assert tuple(record["raw_shape"]) == scan.array.shape
        assert (labels.array[box] > 0).sum() == (labels.array > 0).sum()
        first = geometry.canonical_affine @ [*(s.start - 0.5 for s in box), 1]
        last = geometry.canonical_affine @ [*(s.stop - 0.5 for s in box), 1]
        affine = np.array(record["affine"])
        assert np.allclose(affine @ [-0.5, -0.5, -0.5, 1], first)
        assert np.allclose(affine @ [8.5, 7.5, 6.5, 1], last)
        assert np.isclose(np.prod(record["spacing_mm"]) / 1000, record["voxel_ml"])
        tumor_ml = (labels.array == 2).sum() * geometry.voxel_ml
        assert np.isclose(record["reference_ml"], tumor_ml)


def test_auto_shape_is_the_mean_size_of_the_test_cases(task, tmp_path):
    cohort = prepare(task, SPLIT, tmp_path / "out", TUMOR._replace(shape="auto"))
    # Organs of c2 and c5: 9x7x6 and 12x7x3.
    assert cohort.images.shape[1:] == (round(10.5), 7, round(4.5))


def test_the_second_run_reads_no_scan(task, tmp_path):
    first = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    before = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    calls = []
    second = prepare(
        task, SPLIT, tmp_path / "out", TUMOR, on_case=lambda *c: calls.append(c)
    )
    assert not calls
    assert second.path == first.path
    assert {path: path.stat().st_mtime_ns for path in first.path.iterdir()} == before
    # What is recorded of unchanged files is believed, so they are not read.
    record = tmp_path / "out" / "digests.json"
    known = json.loads(record.read_text())
    known[str(task.training[0].label)][1] = "another"
    record.write_text(json.dumps(known))
    assert prepare(task, SPLIT, tmp_path / "out", TUMOR).path != first.path


CHANGES = [
    {"window_hu": (-30.0, 199.0)},
    {"outside_hu": -60.0},
    {"shape": (9, 8, 6)},
    {"liver_labels": (1,)},
    {"tumor_labels": (1, 2)},
    {"normalisation": "case"},
    {"target": "liver"},
    {"split": Split(("c0", "c3", "c1"), ("c4",), ("c2", "c5"))},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_changed_setting_goes_to_another_folder(task, tmp_path, change):
    first = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    before = contents(first.path)
    split = change.get("split", SPLIT)
    changed = {name: value for name, value in change.items() if name != "split"}
    other = prepare(task, split, tmp_path / "out", TUMOR._replace(**changed))
    assert other.path != first.path
    assert other.fingerprint != first.fingerprint
    assert contents(first.path) == before


def test_the_fingerprint_follows_content_not_time(task, tmp_path):
    first = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    image = task.training[5].image
    os.utime(image, (1, 1))
    assert prepare(task, SPLIT, tmp_path / "out", TUMOR).path == first.path
    scan = nifti.read(image)
    nifti.write(image, scan.array[::-1], scan.geometry, np.int16)
    changed = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    assert changed.fingerprint != first.fingerprint
    assert changed.path != first.path
    # A test case: the training statistics stay.
    assert changed.statistics == first.statistics


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_change_that_keeps_size_and_time_is_noticed(task, tmp_path, kind):
    first = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    path = getattr(task.training[0], kind)
    status, scan = path.stat(), nifti.read(path)
    uncompressed = path.parents[1] / "same_size.nii"
    nifti.write(uncompressed, scan.array[::-1], scan.geometry, scan.array.dtype)
    content = gzip.compress(uncompressed.read_bytes(), 9)
    path.write_bytes(content.ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    changed = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    assert changed.path != first.path
    assert changed.fingerprint != first.fingerprint


def prepare_in_child(root, destination):
    prepare(read_task(root), SPLIT, destination, TO_KILL)


def kill_when(seen, root, destination):
    """Prepares in a process, kills it as soon as `seen()`, returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unc_jax.data.cohort"])  # not once a child
    child = context.Process(target=prepare_in_child, args=(root, destination))
    child.start()
    while child.exitcode is None and not seen():
        pass
    child.kill()
    child.join()
    return child.exitcode


def test_kill_at_any_moment_and_run_again(tmp_path):
    task = read_task(write_task(tmp_path / "Task"))
    reference = prepare(task, SPLIT, tmp_path / "reference", TO_KILL)
    folder = tmp_path / "out" / reference.path.name
    # While a file of this name is being written, and at some moment of the whole.
    for name in ("c2.npz", "images.npy", "labels.npy", "cases.json", ""):
        end = time.monotonic() + random.uniform(0, 0.2)

        def seen(name=name, end=end):
            return any(folder.rglob(f"*{name}")) if name else time.monotonic() > end

        status = kill_when(seen, task.root, tmp_path / "out")
        assert status == -signal.SIGKILL or name in ("", "cases.json")
        for path, content in contents(folder).items():
            if path.parent == Path() and not path.name.startswith(".tmp-"):
                assert content == (reference.path / path).read_bytes()
    again = prepare(task, SPLIT, tmp_path / "out", TO_KILL)
    assert contents(again.path) == contents(reference.path)


def test_a_second_process_is_told_who_holds_the_folder(task, tmp_path):
    cohort = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    (cohort.path / "cases.json").unlink()
    holding = files.hold(cohort.path, "somebody")
    with holding, pytest.raises(InputError, match=f"somebody, process {os.getpid()}"):
        prepare(task, SPLIT, tmp_path / "out", TUMOR)
    assert prepare(task, SPLIT, tmp_path / "out", TUMOR).fingerprint


def test_all_unreadable_cases_are_named_at_once(task, tmp_path):
    good = {}
    for number in (1, 4):
        path = task.training[number].image
        good[path] = path.read_bytes()
        path.write_bytes(good[path][:-20])
    seen = []
    with pytest.raises(InputError, match=r"2 problems in 6 cases.*c1\.nii.*c4\.nii"):
        prepare(
            task,
            SPLIT,
            tmp_path / "out",
            TUMOR,
            on_case=lambda done, total: seen.append((done, total)),
        )
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_case_without_organ_or_of_two_shapes_is_named(task, tmp_path):
    case = task.training[3]
    assert case.label is not None
    for array in (np.zeros((15, 14, 8), np.uint8), np.ones((15, 14, 9), np.uint8)):
        nib.save(nib.Nifti1Image(array, np.diag([-0.8, -0.8, 5, 1.0])), case.label)
        with pytest.raises(InputError, match=r"c3\.nii\.gz: (an empty|image .* label)"):
            prepare(task, SPLIT, tmp_path / "out", TUMOR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (20000, 20000, 20000)}, r"needs \d+\.\d GB, .* are free"),
        ({"window_hu": (900.0, 901.0)}, "one value"),
        (
            {"window_hu": (900.0, 901.0), "normalisation": "case"},
            r"6 problems in 6 cases: .*c0\.nii\.gz: has one value \(900\)",
        ),
    ],
)
def test_what_cannot_be_prepared_is_said(task, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        prepare(task, SPLIT, tmp_path / "out", TUMOR._replace(**change))


def test_values_that_float16_does_not_hold_are_refused(task, tmp_path):
    """Infinities would be trained on."""
    case = task.training[2]
    noise = np.random.default_rng(0).uniform(0, 100, (14, 14, 9)).astype(np.float32)
    nib.save(nib.Nifti1Image(2e7 + noise, np.diag([1, 1, 1, 1.0])), case.image)
    recipe = LIVER._replace(window_hu=())
    with pytest.raises(InputError, match=r"case c2: has voxels 2.35e\+05 standard"):
        prepare(task, SPLIT, tmp_path / "out", recipe)
    own = recipe._replace(normalisation="case")
    assert np.isfinite(prepare(task, SPLIT, tmp_path / "own", own).images).all()


def test_a_target_that_no_training_case_has_is_refused(task, tmp_path):
    recipe = TUMOR._replace(tumor_labels=(9,))
    with pytest.raises(InputError, match=r"no training case .* \(labels 9\)"):
        prepare(task, SPLIT, tmp_path / "out", recipe)


def test_a_split_of_other_cases_is_refused(task, tmp_path):
    with pytest.raises(InputError, match=r"not in .*'c9'"):
        prepare(task, Split(("c0",), ("c1",), ("c9",)), tmp_path / "out", TUMOR)


def test_open_refuses_what_is_not_finished(task, tmp_path):
    with pytest.raises(InputError, match="is not a prepared cohort"):
        open_cohort(tmp_path / "nowhere")
    cohort = prepare(task, SPLIT, tmp_path / "out", TUMOR)
    content = (cohort.path / "images.npy").read_bytes()
    (cohort.path / "images.npy").write_bytes(content[:-10])
    with pytest.raises(InputError, match="is damaged"):
        open_cohort(cohort.path)


def test_foreground_places_lie_on_the_label(task, tmp_path):
    cohort = prepare(task, SPLIT, tmp_path / "out", LIVER)
    assert cohort.foreground.dtype == np.int16
    assert cohort.foreground.shape == (6, cohort.labels.sum((1, 2, 3)).max(), 3)
    for index, count in enumerate(cohort.foreground_counts):
        expected = np.argwhere(cohort.labels[index])
        assert np.array_equal(cohort.foreground[index, :count], expected)


def test_foreground_of_a_large_label_is_a_fair_draw():
    label = np.ones((50, 60, 70), np.uint8)
    places, count = draw_foreground(label, "liver_0")
    assert (count, places.shape) == (label.size, (MAX_FOREGROUND, 3))
    flat = np.ravel_multi_index(tuple(places.T.astype(int)), label.shape)
    assert (np.diff(flat) > 0).all()
    # The mean of m uniform places strays by size / sqrt(12 m), here below 0.12.
    assert np.allclose(places.mean(axis=0), [24.5, 29.5, 34.5], atol=0.5)
    assert np.array_equal(places, draw_foreground(label, "liver_0")[0])
    assert not np.array_equal(places, draw_foreground(label, "liver_1")[0])
