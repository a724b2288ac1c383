import json
import os

import pytest

from unc_jax.errors import InputError
from unc_jax.review import own_files, passed_over, scans
from unc_jax.review.scans import safe_name

UNREADABLE = "/proc/self/mem"


def find_scans(source):
    return scans.find_scans(source).scans


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


def test_case_names_are_safe_as_folders_and_differ(tmp_path):
    names = ["=cmd|'x'.nii", "ä b.nii", "ö b.nii", "..nii", "x" * 150 + ".nii"]
    names += [os.fsdecode(b"caf\xe9.nii"), "cases.csv.nii.gz", "pictures.nii", "a.nii"]
    folder = touch(tmp_path / "in", *names, "x" * 149 + "y.nii")
    found = [scan.case for scan in find_scans(folder)]
    assert len(set(found)) == len(names)  # but the hidden one
    for case in found:
        assert case.isascii()
        assert not case.startswith(".")
        assert len(case) <= 110
    assert "a" in found
    assert not {"cases.csv", "pictures"} & set(found)


def test_a_name_depends_on_itself_alone():
    assert safe_name("liver_1") == "liver_1"
    assert safe_name("12/34") != safe_name("12 34")
    assert safe_name("12/34") == safe_name("12/34")
    assert safe_name("a", "patient 1") != safe_name("a", "patient 2") != "a"


def test_every_file_passed_over_is_counted_and_named(tmp_path):
    folder = touch(tmp_path / "in", "a.nii", "._a.nii", "b.nrrd", "c.nrrd", "d.nrrd")
    touch(folder, "e.nrrd", "a.hdr", "a.img")
    touch(folder / "later", "x.nii")
    touch(folder / "out", ".lock-holder", "mask.nii.gz")
    os.mkfifo(folder / "pipe.nii")
    (folder / "gone.nii").symlink_to(tmp_path / "nowhere")
    (folder / "loop").symlink_to(folder)
    found = scans.find_scans(folder)
    reasons = {
        reason: sorted(path.rpartition("/")[2] for path in paths)
        for reason, paths in passed_over.reasons(found.passed_over).items()
    }
    assert reasons == {
        "a link to a folder": ["loop"],
        "a folder of its own: name it by --input": ["x.nii"],
        "an output": ["out"],
        "hidden": ["._a.nii"],
        "neither NIfTI nor DICOM": ["b.nrrd", "c.nrrd", "d.nrrd", "e.nrrd"],
        "no file, but a pipe, device or link": ["gone.nii", "pipe.nii"],
    }
    assert any(
        line.startswith("passed over 4 (neither NIfTI nor DICOM): ")
        and line.endswith("d.nrrd, ...")
        for line in passed_over.lines(found.passed_over)
    )


@pytest.mark.skipif(not os.path.exists(UNREADABLE), reason="Linux alone has it")
def test_files_that_cannot_be_read_end_nothing(tmp_path):
    """Not even the superuser can read the memory that a process does not have."""
    touch(tmp_path, "a.nii.gz")
    (tmp_path / "series").mkdir()
    for name in ("notes.txt", "scan.nii.gz", "series/IM0001"):
        (tmp_path / name).symlink_to(UNREADABLE)
    found = scans.find_scans(tmp_path)
    cases = {scan.case: scan for scan in found.scans}
    assert cases["a"].digest()
    assert cases["scan"].digest() == ""
    (other,) = (scan for scan in found.scans if scan.series)
    assert "Input/output error" in other.problem
    assert [(p.path.name, p.reason) for p in found.passed_over] == [
        ("notes.txt", "Input/output error")
    ]


def test_refused_entries_of_a_set_are_named(tmp_path):
    pairs = [{"image": f"im/{n}.nii", "label": f"la/{n}.nii"} for n in ("a", "b c")]
    content = {"labels": {"1": "liver"}, "training": pairs, "test": ["ts/a.nii"]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    touch(tmp_path / "imagesTs", "late.nii.gz", "._late.nii.gz")
    found = scans.find_scans(tmp_path)
    assert [scan.case for scan in found.scans] == ["a"]
    unlisted = tmp_path / "imagesTs" / "late.nii.gz"
    assert (unlisted, "not in dataset.json") in found.passed_over
    lines = passed_over.lines(found.passed_over)
    assert any("the case id 'b c'" in line for line in lines)
    assert any("the case id a occurs more than once" in line for line in lines)


def test_nested_folders_of_totalsegmentator(tmp_path):
    for case in ("s1", "s 2"):
        touch(tmp_path / case, "ct.nii.gz")
        touch(tmp_path / case / "segmentations", "liver.nii.gz", "spleen.nii.gz")
    touch(tmp_path / "s3", "portal.nii.gz")
    touch(tmp_path / "many", "one.nii", "two.nii")
    found = scans.find_scans(tmp_path)
    assert {scan.case for scan in found.scans} == {"s1", safe_name("s 2"), "s3"}
    assert sorted(map(len, passed_over.reasons(found.passed_over).values())) == [2, 4]


def test_two_files_of_one_name_are_both_refused(tmp_path):
    found = find_scans(touch(tmp_path / "in", "a.nii", "a.nii.gz", "b.nii"))
    assert [scan.case for scan in found] == ["a~1", "a~2", "b"]
    assert all("share the name a" in scan.problem for scan in found[:2])
    assert found[2].problem == ""


def test_a_finished_output_is_no_patient(tmp_path):
    folder = touch(tmp_path / "in")
    touch(folder / "P1", "portal.nii.gz")
    for output in (folder, folder / "out"):
        tables = own_files.of_tables(output)
        part = own_files.of_case(output, "P1")
        tables.begin()
        with part.writing():
            touch(output / "P1", "mask.nii.gz")
        (output / "cases.csv").write_text("")
        tables.finish()
        found = scans.find_scans(folder)
        assert [scan.path for scan in found.scans] == [folder / "P1" / "portal.nii.gz"]
    assert passed_over.reasons(found.passed_over)["an output"] == [str(folder / "out")]
    touch(folder / "out" / "P7", "ct.nii.gz")  # one of the scans beside it
    assert len(find_scans(folder)) == 2


@pytest.mark.parametrize("name", ["none", "empty"])
def test_nothing_to_segment(tmp_path, name):
    touch(tmp_path / "empty")
    with pytest.raises(
        InputError, match=r"no file or folder|holds no \.nii\.gz, .* or DICOM"
    ):
        find_scans(tmp_path / name)
