"""Training loop of one config: start or resume, update, validate, save, stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from absl import logging

from unc_jax import runtime
from unc_jax.config import Config, stored_config
from unc_jax.data import files
from unc_jax.data.cohort import Cohort
from unc_jax.segmentation import devices
from unc_jax.segmentation.checkpoint import Checkpoints, folder_of
from unc_jax.segmentation.feed import build_feed
from unc_jax.segmentation.models import build_model, precision_of
from unc_jax.segmentation.progress import MetricLog, Progress, plot_curves
from unc_jax.segmentation.resume import check_resumable
from unc_jax.segmentation.train import (
    TrainState,
    build_train_step,
    create_state,
    empty_state,
    variables_of,
)

# A function (variables of the network, stopping) -> mean Dice of the validation cases,
# or None if `stopping()` returned True before the last of them.
Validate = Callable[[dict[str, Any], Callable[[], bool]], float | None]


class Stopped(Exception):
    """Training stopped on a signal, with its state saved."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}, state saved; run again to resume")
        self.exit_code = 128 + signal_number


def fit(
    config: Config, cohort: Cohort, workdir: Path, validate: Validate
) -> TrainState:
    """Trains to `config.train.steps`, from the latest checkpoint where there is one.

    Resumes from the newest checkpoint with a valid checksum, or starts from scratch if
    none was ever saved. Writes config.json, metrics.jsonl, progress.png and checkpoints
    (`folder_of`). Several processes train together on all their devices; the main
    process writes.

    Raises:
      InputError: the run was started with another config or cohort (nothing is written
        then), or no checkpoint is usable.
      FloatingPointError: the loss became NaN or infinite; the message names the steps.
      Stopped: SIGTERM or SIGINT was received; the state was saved.
    """
    devices.check_batch(config.train.batch)
    check_resumable(config, cohort.fingerprint, workdir)
    model = build_model(config)
    recorded = {
        **stored_config(config),
        "cohort": cohort.fingerprint,
        "precision": precision_of(config),
    }
    folder = folder_of(workdir, config.train.checkpoints)
    with Checkpoints(folder) as checkpoints, _signals() as received:
        like = devices.replicate(empty_state(config, model))
        restored = checkpoints.restore(like)
        if restored is None:
            state = devices.replicate(create_state(config, model))
        else:
            state = restored.state
            checkpoints.discard_after(restored.step)
            logging.info("resumed at step %d", restored.step)
        known = (workdir / "config.json").exists()
        if runtime.is_main() and not (known and int(state.step) == config.train.steps):
            files.write_json(workdir / "config.json", stored_config(config))
        run = _Run(config, cohort, workdir, validate, checkpoints, recorded, received)
        return run.to_the_end(state, model)


class _Run(NamedTuple):
    """One training: its inputs, its checkpoints and the signals received so far."""

    config: Config
    cohort: Cohort
    workdir: Path
    validate: Validate
    checkpoints: Checkpoints
    recorded: dict[str, Any]
    received: list[int]

    def to_the_end(self, state: TrainState, model) -> TrainState:
        """Trains, logs, validates and saves up to the last step; returns its state."""
        train, step = self.config.train, int(state.step)
        log = MetricLog(self.workdir / "metrics.jsonl")
        if runtime.is_main():
            log.rewind(step)
        progress = Progress("train", train.steps, "step", done=step)
        feed = build_feed(
            self.config, self.cohort, build_train_step(self.config, model)
        )
        first, note = step, ""
        # A run that was stopped during validation validates first when it resumes.
        missing = self._is_due(step) and not log.has(step, "validation_dice")
        if runtime.broadcast(missing):
            self._validate_and_save(state, step, log)
        while step < train.steps:
            state, losses = feed(state, step)
            step += train.steps_per_call
            loss = _finite_mean(losses, step)
            if runtime.is_main():
                log.write(step, loss=loss)
            if self._is_due(step):
                score = self._validate_and_save(state, step, log)
                note = f", validation Dice {score:.3f}"
            elif step % train.checkpoint_every_steps == 0:
                self.checkpoints.save(step, state, self.recorded, None)
            if self._signal():
                self._save_and_stop(state, step)
            if step == first + train.steps_per_call:
                progress.restart_clock(step)  # the first call included compilation
            progress(step, f"loss {loss:.4f}{note}")
        return state

    def _is_due(self, step: int) -> bool:
        """Returns whether the state after `step` updates is validated."""
        train = self.config.train
        every = step % train.validate_every_steps == 0
        return step > 0 and (every or step == train.steps)

    def _validate_and_save(self, state: TrainState, step: int, log: MetricLog) -> float:
        score = self.validate(variables_of(state), lambda: self._signal() > 0)
        if score is None:
            self._save_and_stop(state, step)
        _warn_if_empty(score, step)
        # Logged before the checkpoint is saved: otherwise a run killed in between would
        # never log it.
        if runtime.is_main():
            log.write(step, validation_dice=score)
            plot_curves(log.read(), self.workdir / "progress.png")
        self.checkpoints.save(step, state, self.recorded, score)
        return score

    def _save_and_stop(self, state: TrainState, step: int) -> NoReturn:
        self.checkpoints.save(step, state, self.recorded, None)
        raise Stopped(self._signal(), step)

    def _signal(self) -> int:
        """Returns the signal that any process received, 0 for none.

        It is the same on all processes, so that all stop at the same step.
        """
        return runtime.all_max(self.received[0] if self.received else 0)


def _warn_if_empty(score: float, step: int) -> None:
    if score < 0.01:
        logging.warning(
            "validation Dice is %.4f at step %d: the predicted foreground is empty "
            "or misses the target; try a higher train.learning_rate, another loss "
            "or loss.wcc_weights, or more steps",
            score,
            step,
        )


def _finite_mean(losses: jax.Array, step: int) -> float:
    values = np.asarray(losses)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        before = step - len(values)
        raise FloatingPointError(
            f"the loss became NaN or infinite at step {before + int(bad[0]) + 1} (in "
            f"the call of steps {before + 1} to {step}); lower train.learning_rate or "
            "set train.clip_norm; the checkpoints before it are kept"
        )
    return float(values.mean())


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; a second signal raises KeyboardInterrupt."""
    received: list[int] = []

    def note(number: int, frame) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        logging.warning(
            "signal %d: saving after the running steps, then stopping", number
        )

    previous = {
        number: signal.signal(number, note)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
