"""Outputs: files of others are never replaced or removed, one's own are known again."""

import json
import shutil

import numpy as np
import pytest
from folders import contents
from samples import write

from unc_jax import predict, score
from unc_jax.errors import InputError
from unc_jax.review import own_files
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS


def review(run, source, output, *flags):
    argv = ["--run", run, "--input", source, "--output", output, *flags]
    return code_of(predict.main, *argv)


def code_of(command, *flags):
    with pytest.raises(SystemExit) as done:
        command(list(map(str, flags)))
    return done.value.code


def rows_of(output):
    rows = cases_table.read_rows(output / "cases.csv", REVIEW_COLUMNS)
    return {row["case"]: row for row in rows}


@pytest.fixture
def patients(tiny_task, tmp_path):
    """A folder of two scans, each in a folder of its own."""
    scans = sorted((tiny_task / "imagesTr").glob("*.nii.gz"))
    for name, scan in zip(("P1", "P2"), scans, strict=False):
        (tmp_path / "q" / name).mkdir(parents=True)
        shutil.copy(scan, tmp_path / "q" / name / "ct.nii.gz")
    return tmp_path / "q"


def test_scans_where_maps_would_lie_are_refused(tiny_run, patients, capsys):
    """A scan is called as a map, an expert's mask lies beside a scan, and a table."""
    for name in ("P1/mean.nii.gz", "P1/mask.nii.gz", "cases.csv", "pictures/P2.png"):
        alone = name == "P1/mean.nii.gz"
        path = patients / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(patients / "P1" / "ct.nii.gz", path)
        if alone:
            (patients / "P1" / "ct.nii.gz").rename(patients / "kept")
        before = contents(patients)
        link = patients.parent / "link"
        for output in (patients, patients / ".." / "q", link):
            link.is_symlink() or link.symlink_to(patients)
            assert review(tiny_run, patients, output) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: {output / name}: ")
            assert line.endswith("name another --output")
            assert contents(patients) == before
        if alone:
            (patients / "kept").rename(patients / "P1" / "ct.nii.gz")
        path.unlink()


def test_an_output_among_the_scans_is_known_again(tiny_run, patients, tmp_path):
    assert review(tiny_run, patients, patients) == 0
    first = rows_of(patients)
    made = contents(patients)
    assert first.keys() == {"P1", "P2"}
    moved = patients.rename(tmp_path / "moved")
    (moved / "pictures" / "P1.png").unlink()
    (moved / "P2" / "mask.nii.gz").unlink()
    flags = ("--target-dice", 0.7, "--largest-component")
    assert review(tiny_run, moved, moved) == 0
    for case, row in rows_of(moved).items():
        assert row["input"] == str(moved / case / "ct.nii.gz")
        assert row["d_pw"] == first[case]["d_pw"]
    again = contents(moved)
    assert again.keys() == made.keys()
    assert all(again[p] == made[p] for p in made if p.endswith((".gz", ".png")))
    # Below another input it is neither scans nor hides any.
    assert review(tiny_run, tmp_path, tmp_path / "out", *flags) == 0
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(told["sha256"]) == 2
    assert told["flags"]["target_dice"] == "0.7"
    assert told["flags"]["largest_component"] == "True"
    assert review(tiny_run, tmp_path, tmp_path / "out", *flags) == 0
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(told["sha256"]) == 2
    assert told["passed_over"]["an output"] == [str(tmp_path / "out")]


def test_a_corrected_mask_is_kept_and_is_no_result(tiny_run, patients, tmp_path):
    output = tmp_path / "out"
    assert review(tiny_run, patients, output) == 0
    mask = output / "P1" / "mask.nii.gz"
    write(mask, np.ones((5, 5, 5), np.uint8))
    before = contents(output / "P1")
    for flags in ((), ("--largest-component",)):  # resumed, and made anew
        assert review(tiny_run, patients, output, *flags) == 4
        row = rows_of(output)["P1"]
        assert f"{mask}: was changed after it was written" in row["status"]
        assert row["dice"] is None
        assert rows_of(output)["P2"]["status"] in (cases_table.OK, cases_table.EMPTY)
        assert contents(output / "P1") == before
    mask.rename(tmp_path / "corrected.nii.gz")
    assert review(tiny_run, patients, output) == 0
    assert mask.exists()


def test_saved_samples_are_scored_into_another_output(tiny_run, patients, capsys):
    output = patients.parent / "out"
    assert review(tiny_run, patients, output, "--samples-too") == 0
    before = contents(output)
    flags = ("--samples", output, "--pattern", "{case}/samples/{sample}", "--output")
    capsys.readouterr()
    assert code_of(score.main, *flags, output) == 2
    assert "earlier command wrote are not samples, but" in capsys.readouterr().err
    assert contents(output) == before
    assert code_of(score.main, *flags, output.parent / "scored") == 0
    assert len(rows_of(output.parent / "scored")) == 2
    assert contents(output) == before


def test_maps_of_another_output_are_no_samples_and_no_scans(
    tiny_run, patients, tmp_path, capsys
):
    output = tmp_path / "out"
    assert review(tiny_run, patients, output) == 0
    capsys.readouterr()
    for source, pattern in ((output, "{case}/{sample}"), (output / "P1", "{case}")):
        flags = ("--samples", source, "--pattern", pattern, "--output", tmp_path / "o")
        assert code_of(score.main, *flags) == 2
        assert "earlier command wrote are not samples" in capsys.readouterr().err
        assert review(tiny_run, source, tmp_path / "o") == 2
        assert "holds no .nii.gz" in capsys.readouterr().err
    shutil.copy(output / "P1" / "mask.nii.gz", output / "P1" / "rater_1.nii.gz")
    shutil.copy(output / "P1" / "mask.nii.gz", output / "P1" / "rater_2.nii.gz")
    assert code_of(score.main, "--samples", output, "--output", tmp_path / "o") == 4
    assert rows_of(tmp_path / "o")["P1"]["n_samples"] == 2


@pytest.mark.parametrize("flag", ["--liver-masks", "--liver-run"])
def test_a_liver_for_a_run_that_needs_none_is_refused(
    tiny_run, patients, tmp_path, capsys, flag
):
    assert review(tiny_run, patients, tmp_path / "out", flag, tiny_run) == 2
    assert "segments no tumours within a liver" in capsys.readouterr().err
    both = ("--liver-masks", patients, "--liver-run", tiny_run)
    assert review(tiny_run, patients, tmp_path / "out", *both) == 2
    assert "not allowed with argument" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_refused_run_makes_no_folder(tiny_run, patients, tmp_path):
    for missing in ("checkpoints", "preparation.json"):
        run = tmp_path / missing
        shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns(missing))
        assert review(run, patients, tmp_path / "out") == 2
        assert not (tmp_path / "out").exists()


def test_a_killed_command_leaves_no_stranger(tmp_path):
    part = own_files.of_case(tmp_path, "a [1]", samples=True)
    part.begin()
    write(tmp_path / "a [1]" / "mask.nii.gz", np.ones((2, 2, 2), np.uint8))
    (tmp_path / "a [1]" / "notes.txt").write_text("of a user")
    own_files.check([part], [])
    part.begin()
    kept = {tmp_path / "a [1]" / name for name in (".begun.json", "notes.txt")}
    assert {*(tmp_path / "a [1]").iterdir()} == kept


def test_a_killed_command_with_other_flags_leaves_no_stranger(tmp_path):
    """Its DICOM segmentations would belong to another mask."""
    more = own_files.of_case(tmp_path, "a", segmentations=True)
    more.begin()
    (tmp_path / "a" / "mask.dcm").write_text("of the killed command")
    fewer = own_files.of_case(tmp_path, "a")
    fewer.begin()  # is killed too, before it has removed anything
    (tmp_path / "a" / "mask.dcm").write_text("of the killed command")
    with fewer.writing():
        (tmp_path / "a" / "mask.nii.gz").write_text("of the last command")
    assert not (tmp_path / "a" / "mask.dcm").exists()
    own_files.check([more], [])


def test_a_record_lists_no_file_of_others(tmp_path):
    """Whoever wrote it: a folder with scans may come from anywhere."""
    for name in ("a/ct.nii.gz", "a/mask.nii.gz", "b/mask.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listed = ("a/ct.nii.gz", "a/mask.nii.gz", "b/mask.nii.gz", "pictures/a/../x.png")
    record = {"files": dict.fromkeys(listed)}
    (tmp_path / "a" / "case.json").write_text(json.dumps(record))
    part = own_files.of_case(tmp_path, "a")
    assert {*part.listed()} == {tmp_path / "a" / "mask.nii.gz"}
    (tmp_path / "b" / "case.json").write_text('{"patient": 7}')
    (tmp_path / "b" / "mask.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case\.json: would be replaced"):
        own_files.check([own_files.of_case(tmp_path, "b")], [])
