"""Locks, temporary files, names of any bytes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from unc_jax.data import files
from unc_jax.errors import InputError, line_of, printable


@pytest.mark.parametrize("name", [".lock", ".lock-holder"])
def test_a_lock_that_is_a_link_is_refused_and_not_followed(tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).symlink_to(precious)
    with pytest.raises(InputError, match="remove it"), files.hold(folder, "test"):
        pass
    assert precious.read_text() == "kept"


def test_a_lock_that_is_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(InputError, match="remove it"), files.hold(tmp_path, "test"):
        pass


def test_the_sweep_takes_its_own_files_alone(tmp_path):
    own = tmp_path / "case" / ".tmp-12-unc_jax-mask.nii.gz"
    strange = [tmp_path / ".tmp-notes", tmp_path / "case" / ".tmp-7-mask.nii.gz"]
    # Another process writes there, under a lock of its own.
    other = tmp_path / "other" / own.name
    for path in (own, *strange, other, tmp_path / "other" / ".lock"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    files.sweep(tmp_path)
    assert not own.exists()
    assert all(path.exists() for path in (*strange, other))


def test_what_a_killed_process_leaves_is_swept(tmp_path):
    program = (
        "import os, pathlib, sys; from unc_jax.data import files\n"
        "with files.replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.txt"], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    files.sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_processes_of_one_number_do_not_share_a_temporary_name(tmp_path):
    """In containers every process is number 1."""
    path = tmp_path / "a.txt"
    with files.replacing(path) as one, files.replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_names_of_other_encodings_can_be_written_and_printed(tmp_path):
    name = os.fsdecode(b"caf\xe9.nii")
    files.write_text(tmp_path / "a.csv", name)
    assert (tmp_path / "a.csv").read_text() == "caf\\udce9.nii"
    assert printable(name) == "caf\\udce9.nii"


def test_an_error_steers_no_terminal(tmp_path):
    bad = tmp_path / "a\x1b]0;title\x07\u202eb\n"
    assert line_of(InputError(f"{bad} is bad"), tmp_path).isprintable()
    assert line_of(OSError(2, "none", str(bad)), tmp_path).isprintable()


def test_the_stamp_of_a_file_shows_a_change_that_keeps_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before, status = files.stamp(path), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files.stamp(path) != before


def test_scans_are_read_without_jax():
    program = "import sys, unc_jax.data.nifti; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_threads_may_read_arrays_at_the_same_time(tmp_path):
    path = tmp_path / "case.npz"
    np.savez(path, **{name: np.arange(3) for name in "abcdefgh"})
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # Python 3.11 then fails in some of a thousand reads
    try:
        with ThreadPoolExecutor(4) as pool:
            done = list(
                pool.map(lambda _: files.read_npz(path, "abcdefgh"), range(800))
            )
    finally:
        sys.setswitchinterval(before)
    assert {array.sum() for arrays in done for array in arrays} == {3}


def test_a_home_that_nobody_has_stays_as_it_is_written(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert files.expanded("~/scans") == Path("/home/anna/scans")
    assert files.expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
