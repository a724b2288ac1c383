import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unc_jax.data import verify as checks
from unc_jax.data.dataset import Case, main, read_task, verify, without_test
from unc_jax.errors import InputError

LABELS = {"0": "background", "1": "liver", "2": "cancer"}
SHAPE = (6, 5, 4)
AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def save(path, array, affine=AFFINE, *, sform=1, qform=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, None)
    image.header.set_qform(affine, code=qform)
    image.header.set_sform(affine, code=sform)
    nib.save(nib.Nifti1Image(array, None, image.header), path)


def ct(shape=SHAPE, case=""):
    """Draws a scan of a case; no two cases have the same voxels."""
    generator = np.random.default_rng([0, *case.encode()])
    return generator.integers(-1000, 1000, shape).astype(np.int16)


def mask(shape=SHAPE):
    label = np.zeros(shape, np.uint8)
    label[1:4, 1:4, 1:3] = 1
    label[2, 2, 1] = 2
    return label


def add_case(root, case, *, image=None, label=None, image_affine=AFFINE, affine=AFFINE):
    image = ct(case=case) if image is None else image
    save(root / f"imagesTr/{case}.nii.gz", image, image_affine)
    save(root / f"labelsTr/{case}.nii.gz", mask() if label is None else label, affine)


def pair(case):
    return {
        "image": f"./imagesTr/{case}.nii.gz",
        "label": f"./labelsTr/{case}.nii.gz",
    }


def write_index(root, training, test=(), **fields):
    index = {"name": "Liver", "labels": LABELS, "training": training, "test": [*test]}
    (root / "dataset.json").write_text(json.dumps(index | fields))
    return root


@pytest.fixture
def root(tmp_path):
    """Two sound training cases and a sound test scan."""
    root = tmp_path / "Task03"
    for case in ("liver_10", "liver_2"):
        add_case(root, case)
    save(root / "imagesTs/liver_131.nii.gz", ct())
    pairs = [pair("liver_10"), pair("liver_2")]
    return write_index(root, pairs, ["./imagesTs/liver_131.nii.gz"], numTraining=2)


def one_problem(root):
    found = verify(read_task(root))
    assert len(found) == 1, found
    return found[0]


def only_case(root, **arrays):
    add_case(root, "bad", **arrays)
    return write_index(root, [pair("bad")])


def test_decathlon_folder_is_read(root):
    task = read_task(root)
    assert task.name == "Liver"
    assert task.labels == {0: "background", 1: "liver", 2: "cancer"}
    assert [case.id for case in task.training] == ["liver_10", "liver_2"]
    assert task.training[0].label == root / "labelsTr/liver_10.nii.gz"
    image = root / "imagesTs/liver_131.nii.gz"
    assert task.test == (Case("liver_131", image, None),)


def test_sound_set_has_no_problems_and_reports_progress(root):
    seen = []
    assert verify(read_task(root), lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_test_entries_may_be_pairs(root):
    write_index(root, [pair("liver_2")], [pair("liver_10")])
    assert read_task(root).test[0].label == root / "labelsTr/liver_10.nii.gz"


def test_nnunet_raw_folder_is_read(tmp_path):
    for case in ("a_10", "a_2"):
        save(tmp_path / f"imagesTr/{case}_0000.nii.gz", ct(case=case))
        save(tmp_path / f"labelsTr/{case}.nii.gz", mask())
    save(tmp_path / "imagesTs/t_0000.nii.gz", ct())
    (tmp_path / "imagesTr/._a_2_0000.nii.gz").write_bytes(b"Mac OS X")
    labels = {"background": 0, "organ": [1, 2], "cancer": 2}
    index = {"labels": labels, "file_ending": ".nii.gz", "numTraining": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(index))
    task = read_task(tmp_path)
    assert task.labels == {0: "background", 1: "organ", 2: "organ"}
    image = tmp_path / "imagesTr/a_2_0000.nii.gz"
    assert task.training[0] == Case("a_2", image, tmp_path / "labelsTr/a_2.nii.gz")
    assert [case.id for case in task.training + task.test] == ["a_2", "a_10", "t"]
    assert one_problem(tmp_path).severity == "warning"

    (tmp_path / "imagesTr/a_2_0000.nii.gz").unlink()
    (tmp_path / "labelsTr/a_10.nii.gz").unlink()
    errors = [p for p in verify(read_task(tmp_path)) if p.severity == "error"]
    assert [problem.case for problem in errors] == ["a_2", "a_10"]
    assert all("no such file" in problem.message for problem in errors)


def test_nnunet_1_lists_images_without_their_channel(root):
    for case in ("liver_10", "liver_2"):
        path = root / f"imagesTr/{case}.nii.gz"
        path.rename(root / f"imagesTr/{case}_0000.nii.gz")
    task = read_task(root)
    assert [case.id for case in task.training] == ["liver_10", "liver_2"]
    assert task.training[0].image == root / "imagesTr/liver_10_0000.nii.gz"
    assert verify(task) == []


def test_paths_of_windows(root):
    pairs = [{k: v.replace("/", "\\") for k, v in pair("liver_2").items()}]
    assert verify(read_task(write_index(root, pairs))) == []
    hidden = [{k: v.replace("/", "\\") for k, v in pair("._liver_2").items()}]
    assert "AppleDouble" in one_problem(write_index(root, pairs + hidden)).message


def test_nnunet_2_lists_files_by_name(root):
    add_case(root, "elsewhere")
    listed = {
        "b": {"images": ["imagesTr/liver_2.nii.gz"], "label": pair("liver_2")["label"]},
        "a": {"images": ["imagesTr/elsewhere.nii.gz"], "label": "../a.nii.gz"},
        "c": {"images": ["x.nii", "y.nii"], "label": pair("liver_2")["label"]},
    }
    content = {"labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content | {"dataset": listed}))
    task = read_task(root)
    assert task.training == (
        Case("b", root / "imagesTr/liver_2.nii.gz", root / "labelsTr/liver_2.nii.gz"),
    )
    assert [problem.case for problem in task.problems] == ["a", "c"]


def test_nested_folders_without_an_index(tmp_path):
    for case in ("s2", "s10"):
        save(tmp_path / case / "ct.nii.gz", ct(case=case))
        save(
            tmp_path / case / "segmentations" / "liver.nii.gz",
            (mask() > 0).astype(np.uint8),
        )
        save(
            tmp_path / case / "segmentations" / "spleen.nii.gz",
            (mask() > 0).astype(np.uint8),
        )
    task = read_task(tmp_path)
    assert [case.id for case in task.training] == ["s2", "s10"]
    assert task.names == {"background": (0,), "liver": (1,)}
    assert verify(task) == []
    (tmp_path / "s2" / "ct.nii.gz").rename(tmp_path / "s2" / "scan.nii.gz")
    (tmp_path / "s10" / "segmentations" / "liver.nii.gz").unlink()
    save(tmp_path / "s3" / "ct.nii.gz", ct())
    save(tmp_path / "s3" / "mri.nii.gz", ct())
    (tmp_path / "notes").mkdir()
    found = {problem.case: problem.message for problem in verify(read_task(tmp_path))}
    assert found["s2"].endswith("s2/ct.nii.gz: no such file")
    assert found["s3"].endswith("lists 2 images; a case has one")
    assert found["s10"].endswith("s10/segmentations/liver.nii.gz: no such file")
    assert len(found) == 3


def test_an_index_that_is_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "dataset.json")
    with pytest.raises(InputError, match=r"dataset\.json: no file"):
        read_task(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file_ending": ".png"}, "file_ending is '.png'"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "one channel"),
        ({"channel_names": 2}, "one channel"),
        ({}, "holds no imagesTr"),
    ],
)
def test_unfit_nnunet_folder_is_refused(tmp_path, fields, message):
    index = {"labels": {"background": 0}, "file_ending": ".nii.gz"} | fields
    (tmp_path / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        read_task(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; give the folder"),
        (b"{'training'", "cannot be read as JSON"),
        (
            b'{"name": "\xe9", "labels": {"1": "a"}, "training": [1]}',
            "cannot be read as JSON",
        ),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[1]", "one JSON object"),
        (b'{"training": [{}]}', '"labels" must map'),
        (b'{"labels": {"one": "liver"}, "training": [{}]}', '"labels" must map'),
        (b'{"labels": {"1": null}, "training": [{}]}', '"labels" must map'),
        (b'{"labels": {"1": "a"}}', 'has no "training" list'),
        (b'{"labels": {"1": "a"}, "training": []}', 'has no "training" list'),
        (b'{"labels": {"1": "a"}, "training": {"a": 1}}', 'has no "training" list'),
        (b'{"labels": {"1": "a"}, "training": [1], "test": 5}', 'has no "test" list'),
    ],
)
def test_broken_index_is_one_line_naming_it(tmp_path, content, message):
    if content is not None:
        (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_task(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "dataset.json"))
    assert "\n" not in str(caught.value)


REFUSED = [
    "/etc/secret.nii.gz",
    "../secret.nii.gz",
    "imagesTr/../../secret.nii.gz",
    "imagesTr/../imagesTr/liver_2.nii.gz",
    "..\\secret.nii.gz",
    "C:\\secret.nii.gz",
    "C:secret.nii.gz",
    "imagesTr/link.nii.gz",
    "away/secret.nii.gz",
    "imagesTr/loop.nii.gz",
    "imagesTr/a\x1b[2J.nii.gz",
    "imagesTr/a\0.nii.gz",
    "imagesTr/liver_2.png",
    "",
    7,
    ["a.nii.gz"],
]


@pytest.mark.parametrize(
    ("role", "entry"),
    [(role, entry) for role in ("image", "label") for entry in REFUSED]
    + [("image", None)],
)
def test_path_that_leaves_the_root_is_refused(root, role, entry):
    save(root.parent / "secret.nii.gz", ct())
    (root / "imagesTr/link.nii.gz").symlink_to(root.parent / "secret.nii.gz")
    (root / "away").symlink_to(root.parent)
    (root / "imagesTr/loop.nii.gz").symlink_to(root / "imagesTr/loop.nii.gz")
    write_index(root, [pair("liver_10"), pair("liver_2") | {role: entry}])
    task = read_task(root)
    assert [case.id for case in task.training] == ["liver_10"]
    problem = one_problem(root)
    assert problem.severity == "error"
    assert "dataset.json training[1]" in problem.message
    assert problem.message.isprintable()


def test_pair_is_a_case_unless_its_voxels_lie_elsewhere(root):
    affine = np.diag([0.7, 0.8, 2.5, 1.0])
    nib.save(nib.Nifti1Pair(ct(), affine), root / "imagesTr/liver_3.hdr")
    nib.save(nib.Nifti1Pair(mask(), affine), root / "labelsTr/liver_3.hdr")
    entry = {"image": "imagesTr/liver_3.hdr", "label": "labelsTr/liver_3.hdr"}
    task = read_task(write_index(root, [entry]))
    assert task.training[0].id == "liver_3"
    assert verify(task) == []
    (root / "imagesTr/liver_3.img").rename(root.parent / "liver_3.img")
    (root / "imagesTr/liver_3.img").symlink_to(root.parent / "liver_3.img")
    assert "links to a place outside" in one_problem(root).message


def test_absolute_path_is_refused_even_into_the_root(root):
    absolute = {"image": str(root / "imagesTr/liver_2.nii.gz")}
    write_index(root, [pair("liver_2") | absolute])
    assert "points outside" in one_problem(root).message


def test_links_within_the_root_and_a_linked_root_are_fine(root):
    (root / "imagesTr/liver_3.nii.gz").symlink_to("liver_2.nii.gz")
    (root / "labelsTr/liver_3.nii.gz").symlink_to("liver_2.nii.gz")
    write_index(root, [pair("liver_3")])
    (root.parent / "linked").symlink_to(root)
    assert verify(read_task(root.parent / "linked")) == []


@pytest.mark.parametrize("name", ["a b", ".hidden", "ä", "x" * 101])
def test_unfit_case_id_is_an_error(root, name):
    write_index(root, [pair("liver_2"), pair(name)])
    problem = one_problem(root)
    assert problem[:2] == ("training[1]", "error")
    assert "case id" in problem.message


def test_a_file_name_that_no_system_takes_is_an_error(root):
    write_index(root, [pair("liver_2"), pair("x" * 300)])
    found = verify(read_task(root))
    assert {problem.case for problem in found} == {"training[1]"}
    assert all("File name too long" in problem.message for problem in found)


def test_longest_case_id(tmp_path):
    add_case(tmp_path, "x" * 100)
    write_index(tmp_path, [pair("x" * 100)])
    assert verify(read_task(tmp_path)) == []


def test_repeated_case_id_is_an_error_in_training_and_in_test(root):
    test = ["./imagesTr/liver_10.nii.gz"]
    write_index(root, [pair("liver_10"), pair("liver_2"), pair("liver_2")], test)
    found = verify(read_task(root))
    assert [p[:2] for p in found] == [("liver_2", "error"), ("liver_10", "error")]
    assert all("more than once" in problem.message for problem in found)
    # Preparing uses no test scan, so its faults are not those of a training case.
    (own,) = verify(without_test(read_task(root)))
    assert own.case == "liver_2"


def test_training_case_without_label(root):
    write_index(root, [{"image": "./imagesTr/liver_2.nii.gz"}])
    assert "no label" in one_problem(root).message


def test_appledouble_files_are_passed_over(root):
    write_index(root, [pair("._liver_2"), pair("liver_2")], ["imagesTs/._a.nii.gz"])
    assert [case.id for case in read_task(root).training] == ["liver_2"]
    problem = one_problem(root)
    assert problem.severity == "warning"
    assert "2 AppleDouble" in problem.message


def test_wrong_count_in_the_index_is_a_warning(root):
    write_index(root, [pair("liver_2")], numTraining=131)
    problem = one_problem(root)
    assert problem.severity == "warning"
    assert "numTraining is 131, but it lists 1 case" in problem.message


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def break_checksum(path):
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)


def replace_by_html(path):
    path.write_text("<html>404</html>")


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "no such file"),
        (truncate, "truncated"),
        (break_checksum, "damaged gzip"),
        (replace_by_html, "not a NIfTI file"),
    ],
)
def test_damaged_file_is_found(root, folder, damage, message):
    path = root / folder / "liver_2.nii.gz"
    damage(path)
    case, severity, text = one_problem(root)
    assert (case, severity) == ("liver_2", "error")
    assert text.startswith(f"{path}: {message}")


def test_shapes_that_differ(tmp_path):
    problem = one_problem(only_case(tmp_path, label=mask((6, 5, 5))))
    assert problem.severity == "error"
    assert "has 6 x 5 x 5 voxels" in problem.message
    assert "bad.nii.gz 6 x 5 x 4" in problem.message


@pytest.mark.parametrize(
    ("shift_mm", "severity"),
    [
        # 0.7 mm is a voxel along x: 0.0007 mm is the tolerance, 0.35 mm the limit.
        (0.0006, None),
        (0.0009, "warning"),
        (0.34, "warning"),
        (-0.36, "error"),
    ],
)
def test_label_off_its_image(tmp_path, shift_mm, severity):
    moved = AFFINE.copy()
    moved[0, 3] += shift_mm
    found = verify(read_task(only_case(tmp_path, affine=moved)))
    assert [problem.severity for problem in found] == ([severity] if severity else [])


def test_wrong_spacing_is_measured_where_it_adds_up(tmp_path):
    # 0.7 -> 0.8 mm along x moves voxel 5 by 0.5 mm = 0.71 voxels, voxel 0 by nothing.
    problem = one_problem(only_case(tmp_path, affine=np.diag([0.8, 0.8, 2.5, 1])))
    assert problem.severity == "error"
    assert "0.714 voxels" in problem.message


def test_other_storage_order_of_the_same_grid_agrees(tmp_path):
    flipped = AFFINE.copy()
    flipped[0, 0], flipped[0, 3] = -0.7, 5 * 0.7
    root = only_case(tmp_path, label=mask()[::-1], affine=flipped)
    assert verify(read_task(root)) == []


def test_mirrored_label_is_an_error(tmp_path):
    problem = one_problem(only_case(tmp_path, affine=np.diag([-0.7, 0.8, 2.5, 1])))
    assert problem.severity == "error"
    assert "5 voxels off" in problem.message


def test_labels_outside_the_task(tmp_path):
    label = mask()
    label[0, 0, :3] = 7
    label[0, 1, 0] = 9
    problem = one_problem(only_case(tmp_path, label=label))
    assert problem.severity == "error"
    assert "label 7 (3 voxels), 9 (1 voxels); allowed are 0, 1, 2" in problem.message


def test_voxels_that_nobody_labelled_are_a_warning(tmp_path):
    """Dice and training take them for background."""
    label = mask()
    label[0, 0, :3] = 3
    root = only_case(tmp_path, label=label)
    index = json.loads((root / "dataset.json").read_text())
    index["labels"]["3"] = "ignore"
    (root / "dataset.json").write_text(json.dumps(index))
    problem = one_problem(root)
    assert problem.severity == "warning"
    assert "3 voxels to be ignored (label 3) count as backgr" in problem.message


@pytest.mark.parametrize(("value", "count"), [(2.0001, 0), (1.5, 1), (np.nan, 1)])
def test_float_labels(tmp_path, value, count):
    label = mask().astype(np.float32)
    label[0, 0, 0] = value
    assert len(verify(read_task(only_case(tmp_path, label=label)))) == count


def test_label_without_foreground_is_a_warning(tmp_path):
    problem = one_problem(only_case(tmp_path, label=np.zeros(SHAPE, np.uint8)))
    assert problem.severity == "warning"
    assert "no foreground" in problem.message


def test_nan_and_inf_voxels(tmp_path):
    image = ct().astype(np.float32)
    image[0, 0, 0], image[1, 2, 3], image[5, 4, 3] = np.nan, np.inf, -np.inf
    problem = one_problem(only_case(tmp_path, image=image))
    assert problem.severity == "error"
    assert "3 of 120 voxels are NaN or Inf" in problem.message


def test_more_than_three_dimensions(tmp_path):
    assert verify(read_task(only_case(tmp_path, image=ct((6, 5, 4, 1))))) == []
    problem = one_problem(only_case(tmp_path, image=ct((6, 5, 4, 2))))
    assert "shape (6, 5, 4, 2)" in problem.message


def test_colour_image(tmp_path):
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "RGB" in one_problem(only_case(tmp_path, image=rgb)).message


def test_no_geometry_is_a_warning(tmp_path):
    only_case(tmp_path)
    for folder, array in (("imagesTr", ct()), ("labelsTr", mask())):
        save(tmp_path / folder / "bad.nii.gz", array, sform=0, qform=0)
    problem = one_problem(tmp_path)
    assert problem.severity == "warning"
    assert "no geometry" in problem.message


@pytest.mark.parametrize(
    ("size", "diagonal", "count"),
    [
        (400, (1, 1, 1), 1),
        (400, (-1, -1, 1), 1),
        (400, (0.9, 1, 1), 0),
        (400, (1, 1, 2), 0),
        (100, (1, 1, 1), 0),
    ],
)
def test_placeholder_spacing_is_a_warning(tmp_path, size, diagonal, count):
    affine = np.diag([*diagonal, 1.0])
    affine[:3, 3] = (-200, -31, 4)
    shape = (size, size, 2)
    arrays = {"image": np.zeros(shape, np.int16), "label": np.ones(shape, np.uint8)}
    only_case(tmp_path, **arrays, image_affine=affine, affine=affine)
    found = verify(read_task(tmp_path))
    assert [problem.severity for problem in found] == ["warning"] * count


@pytest.mark.parametrize(("degrees", "count"), [(4.9, 0), (5.1, 1)])
def test_oblique_scan_is_a_warning(tmp_path, degrees, count):
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ AFFINE
    found = verify(read_task(only_case(tmp_path, image_affine=affine, affine=affine)))
    assert [problem.severity for problem in found] == ["warning"] * count
    assert all(f"{degrees} degrees" in problem.message for problem in found)


def test_all_problems_of_the_whole_set_are_listed_at_once(root):
    moved = AFFINE.copy()
    moved[2, 3] = 100
    bad_image = ct().astype(np.float32)
    bad_image[0, 0, 0] = np.nan
    bad_label = mask()
    bad_label[0, 0, 0] = 3
    # One case with three things wrong, between a broken and a missing one.
    for case in ("cut", "three", "gone", "last"):
        add_case(root, case)
    add_case(root, "three", image=bad_image, label=bad_label, affine=moved)
    truncate(root / "imagesTr/cut.nii.gz")
    (root / "imagesTr/gone.nii.gz").unlink()
    (root / "labelsTr/gone.nii.gz").unlink()
    break_checksum(root / "labelsTr/last.nii.gz")
    cases = ["cut", "three", "gone", "liver_2", "last"]
    entries = [{"image": "/etc/passwd.nii.gz"}, *map(pair, cases)]
    write_index(root, entries, ["./imagesTs/none.nii.gz"])
    found = verify(read_task(root))
    assert [problem.case for problem in found] == [
        *("training[0]", "training[0]"),
        "cut",
        *("three", "three", "three"),
        *("gone", "gone"),
        "last",
        "none",
    ]
    assert {problem.severity for problem in found} == {"error"}


def test_unknown_voxel_type_does_not_end_the_list(root):
    path = root / "imagesTr/liver_10.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[70:72] = b"\xff\x7f"
    path.write_bytes(gzip.compress(bytes(content)))
    truncate(root / "imagesTr/liver_2.nii.gz")
    found = verify(read_task(root))
    assert [problem.case for problem in found] == ["liver_10", "liver_2"]


def test_unforeseen_failure_is_that_files_problem(root):
    path = root / "imagesTr/liver_2.nii.gz"
    found = []
    assert checks._attempt(lambda path: 1 // 0, path, "voxels", found) is None
    ((severity, message),) = found
    assert severity == "error"
    assert message.startswith(f"{path}: voxels unreadable (ZeroDivisionError")


def exit_code(root):
    with pytest.raises(SystemExit) as stopped:
        main([str(root)])
    return stopped.value.code


def test_scans_with_the_same_voxels_are_noticed(root):
    """A copy that was stored in another order, as another type, on another grid."""
    turned = ct(case="liver_2").astype(np.float32)[::-1, :, ::-1].transpose(2, 0, 1)
    affine = np.array([[0, -0.7, 0, 0], [0, 0, 0.8, 9], [-2.5, 0, 0, 3], [0, 0, 0, 1]])
    save(root / "imagesTs/liver_131.nii.gz", turned, affine)
    found = one_problem(root)
    assert (found.case, found.severity) == ("liver_131", "warning")
    assert found.message.startswith("its scan has the voxels of liver_2: ")
    for name in ("liver_10", "liver_131"):
        (root / f"imagesTr/{name}.nii.gz").write_bytes(b"no scan")
        (root / f"imagesTs/{name}.nii.gz").write_bytes(b"no scan")
    assert not [one for one in verify(read_task(root)) if "the voxels" in one.message]


def test_command_prints_the_problems(root, capsys):
    assert exit_code(root) == 0
    assert "2 training and 1 test case, 0 errors, 0 warnings" in capsys.readouterr().out
    truncate(root / "labelsTr/liver_2.nii.gz")
    add_case(root, "forgotten")
    assert exit_code(root) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error    liver_2: ")
    assert lines[1].endswith("imagesTr/forgotten.nii.gz: is not listed in dataset.json")
    assert lines[-1] == "Liver: 2 training and 1 test case, 1 error, 1 warning"


def test_command_says_in_one_line_what_it_cannot_read(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "unc_jax.data.dataset"]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "dataset.json: no such file" in done.stderr


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "training", "test"),
    [
        ("Task03_Liver_sample", 1, 0),
        ("Liver_3mm", 2, 6),
        ("Task04_Hippocampus", 200, 0),
    ],
)
def test_real_sets_are_sound(real_data, name, training, test):
    task = read_task(real_data / name)
    assert (len(task.training), len(task.test)) == (training, test)
    assert verify(task) == []


@pytest.mark.real
@pytest.mark.parametrize(("case", "count"), [(27, 0), (28, 1), (47, 1), (48, 0)])
def test_real_placeholder_spacing_is_noticed(real_data, case, count):
    path = real_data / "lits_liver_masks" / f"LiTS-{case}.nii.gz"
    found = checks.check_case(f"LiTS-{case}", path, None, (), ()).problems
    assert ["placeholder" in problem.message for problem in found] == [True] * count


def test_background_is_a_label_without_being_named(tmp_path):
    label = np.zeros((4, 4, 4), np.uint8)
    label[1:3] = 1
    path = tmp_path / "label.nii.gz"
    nib.Nifti1Image(label, np.eye(4)).to_filename(path)
    assert checks._label_findings(path, {1}, ()) == []
