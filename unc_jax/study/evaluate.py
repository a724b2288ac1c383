"""Evaluation of a model on a prepared cohort: a row per case, resumable.

RUN/cases.csv is written once all cases are done; until then the rows lie in
RUN/cases.part-N.csv (`partial_tables`). RUN/evaluation.json holds what the rows were
made with (checkpoints by content, settings, cohort), so that rows of another model are
never mixed in. RUN/panels/CASE.npz keeps one slice per case for the figures. Several
processes share the cases, each on its own devices, so that a row is the same whichever
process made it.

Quality is the Dice of the final mask (mean probability >= 0.5) with the cohort's label;
`dice_scan` is that of the mask as it is delivered, on the scan's own grid, with the
label of the data set; so are the distances, in mm.
A case that raises, or whose probabilities are not finite, gets the status
"failed: reason" and no numbers, and is tried again next time.
"""

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from unc_jax import runtime
from unc_jax.data import parallel
from unc_jax.data.cohort import Cohort, read_image
from unc_jax.errors import InputError, NoUsableCase, counted
from unc_jax.study import (
    case_columns,
    cases_table,
    delivered_mask,
    metrics,
    partial_tables,
)
from unc_jax.study.background_worker import BackgroundWorker
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.cases_table import OK, SPLITS, Row
from unc_jax.study.panels import Panel, write_panel
from unc_jax.study.predictor import Predict
from unc_jax.uncertainty import halves, measures
from unc_jax.uncertainty.prediction import Prediction

# Ten identical float32 do not average to themselves, so that their mutual information,
# nats, is not quite 0. Dropout at any useful rate stays far above.
_ROUNDING = 1e-6
# Cases that are segmented and not finished, while the devices have the next. At 256^3
# voxels the prediction of each is 0.3 GB, and measuring it takes a core two to three
# times as long as a fast GPU takes to sample it; where there are few cores, several
# cases at once only get into each other's way.
_LAG = 3
_CORES_PER_CASE = 4


def evaluate_cases(
    predict: Predict,
    cohort: Cohort,
    directory: Path,
    *,
    samples: int,
    made_with: dict[str, Any],
    replace: bool = False,
    reference_of: Callable[[str], np.ndarray | None] = lambda case: None,
    splits: Sequence[str] = SPLITS,
    on_case: Callable[[int, int, Row], None] | None = None,
    on_prediction: Callable[[int, Prediction], None] | None = None,
) -> list[Row]:
    """Segments and measures every case of `splits`; returns all rows of cases.csv.

    Process p of P takes the pending cases p, p + P, ...; all processes return all rows.
    While the devices sample a case, earlier cases are measured (several at once on many
    cores) and their files written; their rows are stored in order. When the evaluation
    ends, even by an error, the cases that the devices have sampled are finished.

    predict: (image float32 (x, y, z), case index) -> Prediction of `samples` samples.
    made_with: content of evaluation.json, see `partial_tables.check_rows`.
    replace: remove rows in `directory` that were made with something else.
    reference_of(case): the label on the scan's own grid, bool (x, y, z) in canonical
      order, or None if it is not available. Called while the device samples.
    on_case(done, total, row): called after every newly evaluated case, in order.
    on_prediction(case index, prediction): called by several threads before the case
      counts as finished; an exception in it ends the evaluation.

    Raises InputError for fewer than two samples, for rows made with something else,
    when all samples are identical (dropout is off), and when no case could be
    evaluated.
    """
    if samples < 2:
        raise InputError(f"samples is {samples}; pairwise Dice needs at least 2")
    split_of = {case: name for name in SPLITS for case in getattr(cohort.split, name)}
    wanted = [case for case, split in split_of.items() if split in splits]
    rows = partial_tables.open_rows(directory, made_with, split_of, replace=replace)
    pending = [c for c in wanted if c not in rows or rows[c]["status"] != OK]
    # All volumes are of one shape, so equal numbers of cases are equal work.
    share = pending[runtime.process_index() :: runtime.process_count()]
    varied = any(_row_varies(row) for row in rows.values())
    own: dict[str, Row] = {}

    def finish(case: str, measured: Future[Row]) -> None:
        own[case] = row = measured.result()
        partial_tables.keep(directory, rows, own, split_of)
        if on_case is not None:
            # Assumes that the other processes are equally fast.
            left = max(len(pending) - len(own) * runtime.process_count(), 0)
            on_case(len(wanted) - left, len(wanted), row)

    at_once = max(1, min(_LAG, parallel.cores() // _CORES_PER_CASE))
    with (
        ThreadPoolExecutor(_LAG) as beside,
        ThreadPoolExecutor(at_once) as pool,
        BackgroundWorker(_LAG) as writer,
    ):
        measure = _Measuring(cohort, directory, beside, on_prediction).measure
        read = functools.partial(read_image, cohort)
        images = parallel.in_order(beside, read, share, ahead=1)
        for case, image in zip(share, images, strict=True):
            reference = beside.submit(reference_of, case)
            segmented = _segment(predict, image, cohort.ids.index(case), case)
            if segmented.prediction is not None:
                varied = varied or not segmented.prediction.identical
                _check_samples(segmented.prediction, samples, varied, case)
            measured = pool.submit(measure, case, split_of[case], segmented, reference)
            writer.submit(finish, case, measured)
    rows = partial_tables.join_rows(directory, rows, own, split_of)
    return _usable([rows[case] for case in split_of if case in rows])


class _Segmented(NamedTuple):
    """Result of a case on the devices; the prediction is None if sampling failed."""

    prediction: Prediction | None
    status: str
    seconds: float


class _Measuring(NamedTuple):
    """Measures segmented cases; `beside` is a pool for work in parallel to it."""

    cohort: Cohort
    directory: Path
    beside: ThreadPoolExecutor
    on_prediction: Callable[[int, Prediction], None] | None

    def measure(
        self, case: str, split: str, segmented: _Segmented, reference: Future
    ) -> Row:
        """Returns the row of a case and writes its other files."""
        segmented = _on_host(segmented, case)
        cohort, index = self.cohort, self.cohort.ids.index(case)
        row = _row(cohort, index, split, segmented)
        if (prediction := segmented.prediction) is not None:
            record = cohort.records[index]
            of_scan = self.beside.submit(
                lambda: delivered_mask.measure(prediction, record, reference.result())
            )
            panel = _panel(cohort, index, prediction)
            write_panel(self.directory / "panels" / f"{case}.npz", panel)
            if self.on_prediction is not None:
                self.on_prediction(index, prediction)
            row |= of_scan.result()
        return row


def _segment(predict: Predict, image: np.ndarray, index: int, case: str) -> _Segmented:
    started = time.perf_counter()
    try:
        prediction = predict(image, index)
    except InputError:
        raise
    except Exception as error:
        return _failed(case, error)
    return _Segmented(prediction, OK, round(time.perf_counter() - started, 3))


def _on_host(segmented: _Segmented, case: str) -> _Segmented:
    """Copies the maps to the host; marks the case as failed if they are not finite."""
    if segmented.prediction is None:
        return segmented
    try:
        prediction = segmented.prediction.on_host()
        if not np.isfinite(np.sum(prediction.mean)):  # NaN and infinity outlast a sum
            raise FloatingPointError("probabilities are not finite")
    except Exception as error:
        return _failed(case, error)
    return segmented._replace(prediction=prediction)


def _failed(case: str, error: Exception) -> _Segmented:
    """Logs the error that is being handled and returns a result without prediction."""
    logging.exception("case %s failed", case)
    words = " ".join(str(error).split())[:200]
    return _Segmented(None, f"{cases_table.FAILED}{type(error).__name__}: {words}", 0.0)


def _row(cohort: Cohort, index: int, split: str, segmented: _Segmented) -> Row:
    values: dict[str, Any] = {"split": split, "status": segmented.status}
    if (prediction := segmented.prediction) is not None:
        label, voxel_ml = cohort.labels[index], cohort.records[index]["voxel_ml"]
        mask = prediction.mean >= measures.THRESHOLD
        values |= {
            "dice": metrics.dice(mask, label),
            "reference_ml": metrics.volume_ml(label, float(voxel_ml)),
            "seconds": segmented.seconds,
            **case_columns.measure(prediction, float(voxel_ml)),
            **halves.measure_halves(prediction),
        }
    return cases_table.new_row(EVALUATION_COLUMNS, case=cohort.ids[index], **values)


def _check_samples(
    prediction: Prediction, samples: int, varied: bool, case: str
) -> None:
    if len(prediction.masks) != samples:
        raise ValueError(f"{len(prediction.masks)} samples of {case}, not {samples}")
    # Empty masks are identical under any dropout.
    if not varied and np.any(prediction.masks):
        raise InputError(
            f"case {case}: all {samples} samples are identical, so dropout is off; set "
            "a dropout rate above 0 and train again"
        )


def _row_varies(row: Row) -> bool:
    d_pw, information = row["d_pw"], row["mutual_information"]
    apart = d_pw is not None and float(d_pw) < 1
    return apart or (information is not None and float(information) > _ROUNDING)


def _panel(cohort: Cohort, index: int, prediction: Prediction) -> Panel:
    # The slice with most voxels of the reference or, if it is empty, of the mask.
    label = np.asarray(cohort.labels[index]) != 0
    mask = np.asarray(prediction.mean) >= measures.THRESHOLD
    areas = next((m.sum(axis=(0, 1)) for m in (label, mask) if m.any()), None)
    z = label.shape[2] // 2 if areas is None else int(areas.argmax())
    return Panel(
        image=np.asarray(cohort.images[index, :, :, z], np.float16),
        reference=label[:, :, z],
        prediction=mask[:, :, z],
        uncertainty=np.asarray(prediction.uncertainty[:, :, z], np.float16),
        spacing_mm=np.asarray(cohort.records[index]["spacing_mm"][:2], float),
        z=z,
    )


def _usable(rows: list[Row]) -> list[Row]:
    if rows and all(row["status"] != OK for row in rows):
        raise NoUsableCase(
            f"none of {counted(len(rows), 'case')} could be evaluated, the first, "
            f"{rows[0]['case']}: {rows[0]['status']}; the log has the details"
        )
    return rows
