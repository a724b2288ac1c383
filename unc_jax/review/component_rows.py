"""Rows of components.csv, one per component (lesion), and sentences of the report."""

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
_SIDES = ("left", "right")


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
    """Returns a line of the report for each component of a structure.

    E.g. "lesion 2 of 3: 1.2 ml, 14 mm, seen in 4 of 10 samples". Returns [] for a
    single component that is in all samples.
    """
    kept = [row for row in rows if row["in_mask"] == "yes"]
    if len(rows) == 1 and kept and rows[0]["presence"] == 1:
        return []
    lines = []
    for row in rows[:_SHOWN]:
        noun = "lesion" if is_tumour(str(row["structure"])) else "component"
        many = "or more" if len(kept) == MOST else ""
        name = f"{noun} {row['component']} of {len(kept)} {many}".rstrip()
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
    size = "" if np.isnan(volume) else f" of {_millilitres(volume)}"
    return [f"removed {counted(count, 'component')}{size}, not the largest"]


def matched_auroc(rows: Sequence[Row], column: str) -> dict[str, Any]:
    """Returns how well a column distinguishes matched from false components.

    {value, ci95, matched, false}: AUROC with ties counted half, its 95 % bootstrap
    interval over cases, and the number of components of each kind. value and ci95 are
    None if one kind is missing or there are fewer than ten cases. Components without a
    value in the column are left out.
    """
    known = [row for row in rows if row["matched"] and row[column] is not None]
    ids = list(dict.fromkeys(str(row["case"]) for row in known))
    case = np.array([ids.index(str(row["case"])) for row in known], int)
    values = np.array([row[column] for row in known], float)
    true = np.array([row["matched"] == "yes" for row in known], bool)
    kinds = {"matched": int(true.sum()), "false": int((~true).sum())}
    if not all(kinds.values()) or len(ids) < _FEWEST_CASES:
        return {"value": None, "ci95": None, **kinds}
    # Of the true ones of a case (row) over the false ones of a case (column).
    wins = np.zeros((len(ids), len(ids)))
    for j in range(len(ids)):
        false = np.sort(values[~true & (case == j)])
        below, upto = (np.searchsorted(false, values[true], s) for s in _SIDES)
        wins[:, j] = np.bincount(case[true], (below + upto) / 2, len(ids))
    counts = [np.bincount(case[kind], minlength=len(ids)) for kind in (true, ~true)]
    drawn = statistics.resampled_cases(ids, resamples=RESAMPLES, seed=SEED)
    times = np.stack([np.bincount(one, minlength=len(ids)) for one in drawn])
    with np.errstate(invalid="ignore"):  # NaN of a draw without one of the kinds
        draws = (times @ wins * times).sum(1) / np.prod([times @ n for n in counts], 0)
    value = float(wins.sum() / np.prod(list(kinds.values())))
    found = statistics.finding(statistics.Estimate(value, draws))
    return {"value": value, "ci95": found["ci95"], **kinds}


def presence_words(rows: Sequence[Row]) -> str:
    """Returns sentences on how well presence identifies true components; "" if unknown.

    One sentence is on all components and one, if they are fewer, on those of the masks.
    Large components are in more samples, so the AUROC of the volume alone, and of
    presence below the median volume, are given too.
    """
    rows = [row for row in rows if row["matched"]]
    sentences = []
    kinds = {"all components that are listed": rows}
    of_masks = [row for row in rows if row["in_mask"] == "yes"]
    if len(of_masks) < len(rows):
        kinds["those of the masks"] = of_masks
    for kind, own in kinds.items():
        found = matched_auroc(own, "presence")
        if found["ci95"] is None:
            continue
        volumes = [float(row["volume_ml"] or 0) for row in own]
        middle = float(np.median(volumes))
        small = [one for one, ml in zip(own, volumes, strict=True) if ml < middle]
        beside = (
            ("their volume", matched_auroc(own, "volume_ml")),
            (
                f"presence below {_millilitres(middle)}",
                matched_auroc(small, "presence"),
            ),
        )
        words = [f"{name} {_interval(one)}" for name, one in beside if one["ci95"]]
        sentences.append(
            f"Of {kind}, {found['matched']} in the reference and {found['false']} "
            "false, the share of samples that contain one separates true from false "
            f"with AUROC {'; '.join([_interval(found), *words])}."
        )
    return " ".join(sentences)


def _interval(found: dict[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{found['value']:.2f} (95 % {low:.2f} to {high:.2f})"


def _size(row: Row) -> str:
    """Returns e.g. "1.2 ml, 14 mm, "; "" where nothing tells the size of a voxel."""
    if row["volume_ml"] is None:
        return ""
    return f"{_millilitres(float(row['volume_ml']))}, {row['diameter_mm']:.0f} mm, "


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _millilitres(volume: float) -> str:
    """Returns a volume in words: "1366 ml", "0.123 ml", "under 0.001 ml"."""
    if 0 < volume < 0.001:
        return "under 0.001 ml"
    return f"{volume:.0f} ml" if volume >= 100 else f"{volume:.3g} ml"
