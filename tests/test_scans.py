import json

import pytest

from unc_jax.errors import InputError
from unc_jax.review.scans import find_scans


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_a_folder_of_files(tmp_path):
    folder = touch(tmp_path / "in", "b_0000.nii.gz", "a.nii", "._a.nii", "notes.txt")
    found = find_scans(folder)
    assert [(s.case, s.path.name) for s in found] == [
        ("a", "a.nii"),
        ("b", "b_0000.nii.gz"),
    ]


def test_one_file(tmp_path):
    folder = touch(tmp_path / "in", "a.nii", "b.nii")
    assert [scan.case for scan in find_scans(folder / "b.nii")] == ["b"]


def test_a_decathlon_set_with_its_test_scans(tmp_path):
    content = {"labels": {"0": "background", "1": "liver"}, "name": "Liver"}
    content["training"] = [{"image": "./im/a.nii.gz", "label": "./la/a.nii.gz"}]
    content["test"] = ["./im/b.nii.gz"]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    touch(tmp_path / "im", "a.nii.gz", "b.nii.gz")
    touch(tmp_path / "la", "a.nii.gz")
    assert [scan.case for scan in find_scans(tmp_path)] == ["a", "b"]


def test_case_names_are_safe_as_folders(tmp_path):
    folder = touch(tmp_path / "in", "=cmd|'x'.nii", "ä b.nii", "..nii")
    assert {scan.case for scan in find_scans(folder)} <= {"_cmd__x_", "__b", "scan"}


def test_two_files_of_one_name_are_both_refused(tmp_path):
    found = find_scans(touch(tmp_path / "in", "a.nii", "a.nii.gz", "b.nii"))
    assert [scan.case for scan in found] == ["a~1", "a~2", "b"]
    assert all("share the name a" in scan.problem for scan in found[:2])
    assert found[2].problem == ""


@pytest.mark.parametrize("name", ["none", "empty"])
def test_nothing_to_segment(tmp_path, name):
    touch(tmp_path / "empty")
    with pytest.raises(
        InputError, match=r"no file or folder|holds no \.nii\.gz, .* or DICOM"
    ):
        find_scans(tmp_path / name)
