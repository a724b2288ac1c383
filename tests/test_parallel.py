"""Work of several processes: the same results, errors as ever, no orphans."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from folders import contents

from unc_jax.data import parallel
from unc_jax.data.phantom import draw_cohort
from unc_jax.errors import InputError

LARGE = {"voxels": 1000, "voxel_ns": 10**7}  # worth a process each


def test_results_come_in_order_from_other_processes():
    found = list(parallel.map_cases(_slow_pid, range(4), **LARGE))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert os.getpid() not in {pid for _, pid in found}


def test_little_work_stays_here():
    found = list(parallel.map_cases(_slow_pid, range(2), voxels=1000, voxel_ns=1000))
    assert {pid for _, pid in found} == {os.getpid()}


def _slow_pid(number):
    time.sleep(0.2 / (number + 1))  # the first takes longest
    return number, os.getpid()


def test_an_error_is_raised_here():
    with pytest.raises(InputError, match="case 2"):
        list(parallel.map_cases(_fails_at_two, range(4), **LARGE))


def _fails_at_two(number):
    if number == 2:
        raise InputError("case 2 is bad")


def test_a_killed_process_is_one_line():
    with pytest.raises(InputError, match="killed from outside"):
        list(parallel.map_cases(os._exit, [1, 1], **LARGE))


def test_a_killed_parent_leaves_no_process():
    program = (
        "import time\n"
        "from unc_jax.data import parallel\n"
        "if __name__ == '__main__':\n"
        f"    list(parallel.map_cases(time.sleep, [0, 60, 60], **{LARGE}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        children = []
        while len(children) < 2:
            time.sleep(0.1)
            children = psutil.Process(parent.pid).children()
        time.sleep(1)  # until they work
        parent.kill()
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_no_more_is_begun_than_asked_for():
    begun = []
    with ThreadPoolExecutor(1) as pool:
        found = parallel.in_order(pool, begun.append, range(50), ahead=3)
        next(found)
        assert len(begun) <= 4
        assert len(list(found)) == 49
    assert begun == [*range(50)]


def test_a_cohort_is_the_same_from_several_processes(tmp_path, monkeypatch):
    sizes = {"cases": 2, "seed": 5, "size": (16, 16, 16), "raters": 1}
    draw_cohort.write_cohort(tmp_path / "one", **sizes)
    monkeypatch.setattr(draw_cohort, "_DRAW_NS", 10**9)
    done = []
    draw_cohort.write_cohort(
        tmp_path / "two", **sizes, on_case=lambda *told: done.append(told)
    )
    assert done == [(1, 2), (2, 2)]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
