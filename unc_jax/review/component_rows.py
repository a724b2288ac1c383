"""The table of components (lesions), DIR/components.csv, and words of the report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unc_jax.data.label_names import is_tumour
from unc_jax.errors import counted
from unc_jax.study import metrics, statistics
from unc_jax.study.cases_table import Row
from unc_jax.study.components import Component
from unc_jax.study.statistics import RESAMPLES, SEED

FILE = "components.csv"
COLUMNS = (
    *("case", "structure", "component", "volume_ml", "diameter_mm"),
    *("x_mm", "y_mm", "z_mm", "presence", "d_pw", "u", "matched", "in_mask"),
)
MOST = 100  # of a structure, listed; noise has thousands
_SHOWN = 8  # in the report
_FEWEST_CASES = 10  # to draw an interval from


def rows_of(case: str, structure: str, found: Sequence[Component]) -> list[Row]:
    """Returns a row for each component; `matched` is "" without a reference."""
    rows = []
    for number, one in enumerate(found, start=1):
        x, y, z = one.place_mm
        rows.append(
            {
                **one._asdict(),
                **{"case": case, "structure": structure, "component": number},
                **{"x_mm": x, "y_mm": y, "z_mm": z},
                "d_pw": None if np.isnan(one.d_pw) else one.d_pw,
                "matched": "" if one.matched is None else _yes(one.matched),
                "in_mask": _yes(one.in_mask),
            }
        )
    return [{name: row[name] for name in COLUMNS} for row in rows]


def words_of(rows: Sequence[Row], samples: int) -> list[str]:
    """Returns what the report says of a structure's components, a line for each.

    E.g. "lesion 2 of 3: 1.2 ml, 14 mm, seen in 4 of 10 samples". Nothing of a structure
    that is in one piece, in all samples.
    """
    kept = [row for row in rows if row["in_mask"] == "yes"]
    if len(rows) == 1 and kept and rows[0]["presence"] == 1:
        return []
    lines = []
    for row in rows[:_SHOWN]:
        noun = "lesion" if is_tumour(str(row["structure"])) else "component"
        name = f"{noun} {row['component']} of {len(kept)}"
        seen = round(float(row["presence"] or 0) * samples)
        lines.append(
            f"{name if row['in_mask'] == 'yes' else 'in samples only'}: "
            f"{_size(row)}seen in {seen} of {counted(samples, 'sample')}"
            + ", not in the reference"
            * (row["matched"] == "no")
        )
    more = len(rows) - len(lines)
    return [*lines, f"and {more} more in {FILE}"] if more else lines


def removed_words(rest: np.ndarray, count: int, voxel_ml: float) -> list[str]:
    """Returns the warning that `outside_largest` found something; [] without any."""
    if not count:
        return []
    volume = metrics.volume_ml(rest, voxel_ml)
    size = "" if np.isnan(volume) else f" of {volume:.3g} ml"
    return [f"removed {counted(count, 'component')}{size}, not the largest"]


def presence_auroc(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns how well presence tells components that match from those that do not.

    {value, ci95, matched, false}: AUROC, ties counted half, its 95 % bootstrap interval
    over cases, and how many of each kind there are; None where one kind is missing, or
    there are fewer than ten cases.
    """
    known = [row for row in rows if row["matched"]]
    cases = {case: i for i, case in enumerate(dict.fromkeys(r["case"] for r in known))}
    shares = [float(row["presence"] or 0) for row in known]
    levels, level = np.unique(shares, return_inverse=True)
    counts = np.zeros((len(cases), 2, len(levels)))
    for row, place in zip(known, level, strict=True):
        counts[cases[row["case"]], int(row["matched"] == "yes"), place] += 1
    false, matched = counts.sum(axis=(0, 2)) if known else (0, 0)
    if not (false and matched) or len(cases) < _FEWEST_CASES:
        return {"value": None, "ci95": None, "matched": matched, "false": false}
    ids = list(map(str, cases))
    drawn = statistics.resampled_cases(ids, resamples=RESAMPLES, seed=SEED)
    times = np.stack([np.bincount(one, minlength=len(ids)) for one in drawn])
    draws = _auroc(np.tensordot(times, counts, axes=1))
    value = float(_auroc(counts.sum(axis=0)))
    found = statistics.finding(statistics.Estimate(value, draws))
    kinds = {"matched": int(matched), "false": int(false)}
    return {"value": value, "ci95": found["ci95"], **kinds}


def presence_words(rows: Sequence[Row]) -> str:
    """Returns what `presence_auroc` found, a sentence; "" where it found nothing."""
    found = presence_auroc(rows)
    if found["ci95"] is None:
        return ""
    low, high = found["ci95"]
    return (
        "The share of samples that a component is in tells those of the reference from "
        f"false ones with AUROC {found['value']:.2f} (95 % {low:.2f} to {high:.2f}; "
        f"{found['matched']} of the reference, {found['false']} false)."
    )


def _size(row: Row) -> str:
    """Returns e.g. "1.2 ml, 14 mm, "; "" where nothing tells the size of a voxel."""
    if row["volume_ml"] is None:
        return ""
    return f"{row['volume_ml']:.3g} ml, {row['diameter_mm']:.0f} mm, "


def _auroc(counts: np.ndarray) -> np.ndarray:
    """Returns AUROCs of counts (..., 2, levels) of false and true ones, NaN of none."""
    false, true = counts[..., 0, :], counts[..., 1, :]
    below = np.cumsum(false, axis=-1) - false / 2
    with np.errstate(invalid="ignore"):
        return (true * below).sum(-1) / (true.sum(-1) * false.sum(-1))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
