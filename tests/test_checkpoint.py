import sys

import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.errors import InputError
from unc_jax.segmentation.checkpoint import Checkpoints, folder_of

CONFIG = {"train.batch": 2}


def state(step):
    rng = np.random.default_rng(step)
    weights = rng.standard_normal((40, 50)).astype(np.float32)
    return {"weights": jnp.asarray(weights), "step": jnp.int32(step)}


def saved(folder, dices):
    with Checkpoints(folder) as checkpoints:
        for step, dice in dices.items():
            checkpoints.save(step, state(step), CONFIG, dice)
    return folder


def flip_a_byte(folder, step):
    """In the largest file of the step, which holds the weights."""
    files = [p for p in (folder / f"step_{step:08d}").rglob("*") if p.is_file()]
    path = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_latest_two_and_best_are_kept(tmp_path):
    folder = saved(tmp_path, {1: 0.1, 2: 0.9, 3: 0.5, 4: None, 5: None})
    with Checkpoints(folder) as checkpoints:
        latest = checkpoints.restore(state(0))
        best = checkpoints.restore(state(0), best=True)
        assert checkpoints.started_under() == CONFIG
    assert (latest.step, best.step) == (5, 2)
    np.testing.assert_array_equal(best.state["weights"], state(2)["weights"])
    assert len(list(folder.glob("step_*"))) == 3


def test_nothing_saved_is_none(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state(0)) is None
        assert checkpoints.restore(state(0), best=True) is None


def test_best_is_latest_where_no_dice_was_saved(tmp_path):
    folder = saved(tmp_path, {1: None, 2: None})
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(state(0), best=True).step == 2


def test_a_flipped_byte_falls_back_to_the_older_one(tmp_path):
    folder = saved(tmp_path, {1: 0.1, 2: None})
    flip_a_byte(folder, 2)
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(state(0))
    assert restored.step == 1
    np.testing.assert_array_equal(restored.state["weights"], state(1)["weights"])


def test_all_broken_is_an_error_never_a_silent_restart(tmp_path):
    folder = saved(tmp_path, {1: None})
    flip_a_byte(folder, 1)
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(InputError, match="no usable checkpoint"),
    ):
        checkpoints.restore(state(0))


def test_saving_a_step_again_changes_nothing(tmp_path):
    folder = saved(tmp_path, {1: 0.5})
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state(9), CONFIG, 0.7)
        restored = checkpoints.restore(state(0))
    np.testing.assert_array_equal(restored.state["weights"], state(1)["weights"])


def test_a_full_disk_is_named_before_anything_is_written(tmp_path):
    huge = {"w": np.broadcast_to(np.zeros(1), 10**15)}  # 8 PB that take no memory
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match=r"no room .* MB free, .* MB needed"):
            checkpoints.save(1, huge, {}, None)
        assert checkpoints.latest_step() is None
    assert not list(tmp_path.iterdir())


def test_checkpoints_may_lie_elsewhere_under_the_name_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, elsewhere = tmp_path / "runs" / "one", tmp_path / "elsewhere"
    assert str(folder_of(run, "")) == f"{run}/checkpoints"
    for name in (str(elsewhere), "elsewhere"):
        assert str(folder_of(run, name)) == f"{elsewhere}/one"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(folder_of(run, "~/elsewhere")) == f"{elsewhere}/one"
    with Checkpoints(folder_of(run, "elsewhere")) as checkpoints:
        checkpoints.save(3, state(3), CONFIG, 0.5)
    assert (elsewhere / "one" / "step_00000003").is_dir()
    assert not run.exists()


@pytest.mark.parametrize("library", ["gcsfs", "s3fs"])
def test_an_address_without_its_library_is_one_line(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    address = {"gcsfs": "gs://no_bucket/runs", "s3fs": "s3://no_bucket/runs"}[library]
    with pytest.raises(InputError, match=rf"no_bucket/runs/one .*{library}.*unc_jax\["):
        folder_of(tmp_path / "one", address)


def test_a_broken_one_is_written_again(tmp_path):
    folder = saved(tmp_path, {1: 0.1, 2: None})
    flip_a_byte(folder, 2)
    with Checkpoints(folder) as checkpoints:
        checkpoints.discard_after(checkpoints.restore(state(0)).step)
        checkpoints.save(2, state(2), CONFIG, None)
        assert checkpoints.restore(state(0)).step == 2


def test_a_dice_known_later_is_added(tmp_path):
    folder = saved(tmp_path, {1: 0.5, 2: None, 3: None})
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(3, state(3), CONFIG, 0.7)
        assert checkpoints.restore(state(0), best=True).step == 3
        assert checkpoints.restore(state(0)).step == 3


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe{", b'{"dice": 0.'])
def test_damaged_metrics_are_one_line(tmp_path, damage):
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(3)}, {}, 0.5)
    (metrics,) = (tmp_path / "run").glob("step_*/metrics/metrics")
    metrics.write_bytes(damage)
    for read_only in (True, False):
        with pytest.raises(InputError, match="metrics of a checkpoint are damaged"):
            Checkpoints(tmp_path / "run", read_only=read_only)
