"""Checkpoints of training by Orbax: atomic, checksummed; latest and best are kept."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from unc_jax import runtime
from unc_jax.errors import InputError

_LATEST_KEPT = 2
_RESERVE = 1e6  # bytes, for the files beside the arrays
# EDQUOT: Windows has no quota.
_FULL = tuple(
    os.strerror(getattr(errno, name))
    for name in ("ENOSPC", "EDQUOT")
    if hasattr(errno, name)
)


class Restored(NamedTuple):
    """A restored checkpoint with a valid checksum: step, state, SHA-256."""

    step: int
    state: Any
    sha256: str


def folder_of(workdir: Path, elsewhere: str) -> epath.Path:
    """Returns WORKDIR/checkpoints, or ELSEWHERE/NAME with the run folder's name.

    elsewhere: `train.checkpoints`; empty, a path, or a gs:// or s3:// address, which
    etils and Orbax resolve (no bucket has been tried so far). Raises InputError when
    the address cannot be reached, e.g. because the extra "gcs" or "s3" is not
    installed.
    """
    if not elsewhere:
        return epath.Path(workdir).resolve() / "checkpoints"
    folder = epath.Path(elsewhere).expanduser() / Path(workdir).resolve().name
    if not _is_remote(folder):
        return folder.resolve()
    try:
        folder.exists()
    except Exception as error:  # of whatever library stands behind the address
        words = " ".join(str(error).split())[:200]
        raise InputError(
            f"train.checkpoints: {folder} cannot be reached ({words}); such addresses "
            "need pip install 'unc_jax[gcs]' or 'unc_jax[s3]', and credentials"
        ) from None
    return folder


class Checkpoints:
    """Checkpoints of one run, as a context manager.

    All processes must call the same methods, on a shared folder. The two latest and the
    one with the best validation Dice are kept. Each stores a SHA-256 of its arrays,
    because Orbax restores a checkpoint with a flipped byte without an error.

    read_only: the folder must exist and is not changed; a checkpoint that another
    process is writing is not touched.
    """

    def __init__(self, folder: epath.PathLike, *, read_only: bool = False) -> None:
        managers = ocp.checkpoint_managers
        policy = managers.AnyPreservationPolicy(
            [
                managers.LatestN(_LATEST_KEPT),
                managers.BestN(get_metric_fn=_dice_of, reverse=False, n=1),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=_dice_of,
            best_mode="max",
            step_prefix="step",
            step_format_fixed_length=8,
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            save_interval_steps=0 if read_only else 1,
            enable_async_checkpointing=False,
        )
        self.folder = epath.Path(folder)
        if not _is_remote(self.folder):
            self.folder = self.folder.resolve()
        verbosity = logging.get_verbosity()
        if read_only:
            logging.set_verbosity(logging.ERROR)  # Orbax warns of what was asked for
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except ValueError as error:  # of JSON, or of its encoding
            raise InputError(
                f"{folder}: the metrics of a checkpoint are damaged ({error}); delete "
                "the newest folder step_*, and run again to go on from the one before"
            ) from None
        finally:
            logging.set_verbosity(verbosity)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """Returns the newest step saved, intact or not; None when there is none."""
        return max(self._manager.all_steps(), default=None)

    def save(
        self, step: int, state: Any, config: dict[str, Any], dice: float | None
    ) -> None:
        """Saves `state`; dice: validation Dice for the choice of the best, or None.

        A step that was saved already is kept, unless it has no Dice and one is given
        now. Raises InputError when the disk is full, usually before anything is
        written; earlier checkpoints are kept.
        """
        saved = step in self._manager.all_steps()
        if saved and (dice is None or _dice_of(self._manager.metrics(step)) >= 0):
            return
        self._check_room(state)
        if saved:
            self._manager.delete(step)
        meta = {"config": config, "sha256": _digest(state)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        )
        # Below every Dice, so that a checkpoint without one is never the best.
        metrics = {"dice": -1.0 if dice is None else float(dice)}
        with _full_disk_is_an_input_error(self.folder):
            self._manager.save(step, args=args, metrics=metrics, force=True)
            self._manager.wait_until_finished()

    def discard_after(self, step: int) -> None:
        """Removes checkpoints after `step`, so that damaged ones are written again."""
        for later in self._manager.all_steps():
            if later > step:
                self._manager.delete(later)

    def started_under(self) -> dict[str, Any] | None:
        """Returns the config in the newest readable checkpoint; None without one."""
        return next((meta["config"] for _, meta in self._metas(best=False)), None)

    def chosen(self, *, best: bool) -> tuple[int, str] | None:
        """Returns step and SHA-256 of the checkpoint that would be restored.

        No array is read, so damage is not detected. None without a checkpoint.
        """
        found = ((step, meta["sha256"]) for step, meta in self._metas(best=best))
        return next(found, None)

    def _metas(self, *, best: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        for step in self._order(best=best):
            # Orbax raises bare Exceptions for torn files.
            with contextlib.suppress(Exception):
                yield step, dict(self._manager.restore(step, args=args)["meta"])

    def _order(self, *, best: bool) -> list[int]:
        """Returns all steps, the newest first; with `best`, preceded by the best."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        first = self._manager.best_step() if best else None
        if first is not None and _dice_of(self._manager.metrics(first)) >= 0:
            steps.insert(0, first)
        return steps

    def _check_room(self, state: Any) -> None:
        if _is_remote(self.folder):
            return
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        needed, free = 1.5 * size + _RESERVE, shutil.disk_usage(self.folder).free
        if free < needed:
            raise InputError(
                f"no room for a checkpoint in {self.folder}: {free / 1e6:.1f} MB free, "
                f"{needed / 1e6:.1f} MB needed; free some and run again to resume"
            )

    def restore(
        self, like: Any, *, step: int | None = None, best: bool = False
    ) -> Restored | None:
        """Restores the newest checkpoint with a valid checksum, shaped like `like`.

        A damaged one is skipped with a warning in favour of an older one. best: the
        checkpoint with the best validation Dice comes first. step: only this one.
        Returns None if nothing was ever saved; raises InputError if all are damaged.
        """
        reasons, steps = [], self._order(best=best) if step is None else [step]
        if not steps:
            return None
        for step in steps:
            restored, reason = None, "unreadable on another host"
            try:
                restored = self._restore_step(like, step)
            except Exception as error:  # Orbax raises bare Exceptions for torn files.
                reason = str(error).splitlines()[0][:200]
            # All processes must restore the same step.
            if not runtime.all_max(restored is None):
                return restored
            reasons.append(f"step {step}: {reason}")
            logging.warning("checkpoint skipped, %s", reasons[-1])
        raise InputError(
            f"no usable checkpoint in {self.folder} ({'; '.join(reasons)}); "
            "restore these files from a copy, or train in another --workdir"
        )

    def _restore_step(self, like: Any, step: int) -> Restored:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=args)
        if _digest(restored["state"]) != restored["meta"]["sha256"]:
            raise ValueError("its arrays do not match their checksum")
        return Restored(step, restored["state"], restored["meta"]["sha256"])


def _is_remote(folder: epath.Path) -> bool:
    return "://" in os.fspath(folder)


@contextlib.contextmanager
def _full_disk_is_an_input_error(folder: epath.Path) -> Iterator[None]:
    """Turns Orbax's errors on a full disk into an InputError, without tracebacks."""
    verbosity = logging.get_verbosity()
    if verbosity < logging.INFO:
        logging.set_verbosity(logging.FATAL)  # its threads log what they raise
    try:
        yield
    except Exception as error:
        if not any(words in str(error) for words in _FULL):
            raise
        for torn in folder.glob("*.orbax-checkpoint-tmp"):
            with contextlib.suppress(OSError):
                torn.rmtree()
        raise InputError(
            f"no room for a checkpoint in {folder}; free some and run again to resume"
        ) from None
    # Not after an error: the threads may log it later still.
    logging.set_verbosity(verbosity)


def _dice_of(metrics: Any) -> float:
    return metrics["dice"]


def _digest(state: Any) -> str:
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.ascontiguousarray(jax.device_get(leaf))
        total.update(
            f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode()
        )
        total.update(array.tobytes())
    return total.hexdigest()
