"""Variants of an evaluation: one trained run under other choices.

Each variant changes one thing of how a run was evaluated; nothing is trained again.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data import patches
from unc_jax.study import cases_table, selective, statistics
from unc_jax.study.cases_table import Row
from unc_jax.study.statistics import RESAMPLES, SEED, Estimate
from unc_jax.study.tables import UNDEFINED, Cell, Strong, Table, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

SAMPLES = (2, 5, 10, 20, 50)
_RATES = (0.05, 0.1, 0.2, 0.5)
_OVERLAPS = (0.0, 0.25, 0.5)
_CHOICES = {
    "mask scope": ("evaluate.mask_scope", ("volume", "cohort", "window")),
    "samples N": ("evaluate.samples", SAMPLES),
    "dropout rate": ("model.dropout_rate", _RATES),
    "dropout kind": ("model.dropout_kind", ("spatial", "fixed", "element")),
    "overlap": ("evaluate.overlap", tuple((o, o, o) for o in _OVERLAPS)),
    "source": ("evaluate.source", ("dropout", "flips")),
}
_CAPTION = (
    "{run}: {n} test cases, one choice of the evaluation changed at a time. Columns of "
    "measures: Spearman's rho with Dice, bold where its 95 % bootstrap interval lies "
    "on the side of a measure that works. Change: rho of D_pw less that of the run as "
    "evaluated, same resamples of cases. AURC: area under the risk-coverage curve, "
    "lower is better. Work: voxels of windows per voxel of the volume, for one sample."
)


class Variant(NamedTuple):
    """`fields` over the run's own config; none of the first, the run as it is."""

    group: str
    name: str
    fields: dict[str, Any]

    @property
    def folder(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "_", f"{self.group} {self.name}".lower())


def variants(config: dict[str, Any], members: Sequence[str] = ()) -> list[Variant]:
    """Lists the run as evaluated, then every other value of each choice.

    config: flat, of the run. members: run folders of an ensemble; two or more add it.
    """
    listed = [Variant("as evaluated", "", {})]
    for group, (field, values) in _CHOICES.items():
        own = config.get(field, "dropout")
        own = tuple(own) if isinstance(own, list) else own
        for value in values:
            if value != own:
                name = str(value[0]) if isinstance(value, tuple) else str(value)
                listed.append(Variant(group, name, {field: value}))
    listed += _window_variants(config)
    if len(members) > 1:
        fields = {"evaluate.source": "ensemble", "evaluate.members": tuple(members)}
        listed.append(Variant("source", f"ensemble of {len(members)}", fields))
    return listed


def _window_variants(config: dict[str, Any]) -> list[Variant]:
    """Lists windows of the patch's size, and one window for the whole volume."""
    patch, volume = tuple(config["train.patch_shape"]), config["data.shape"]
    listed = []
    for overlap in _OVERLAPS:
        fields = {"evaluate.overlap": (overlap,) * 3, "evaluate.window_shape": patch}
        size = "x".join(map(str, patch))
        listed.append(Variant("window", f"{size}, overlap {overlap}", fields))
    factor = 2 ** (config["model.depth"] - 1)
    if volume != "auto" and not any(size % factor for size in volume):
        fields = {"evaluate.window_shape": tuple(volume)}
        listed.append(Variant("window", "the whole volume", fields))
    return listed


def work(
    volume_shape: Sequence[int], window: Sequence[int], overlap: Sequence[float]
) -> float:
    """Returns the voxels that the network computes for one voxel of the volume."""
    count = len(patches.window_corners(volume_shape, window, overlap))
    return count * math.prod(window) / math.prod(volume_shape)


def describe(rows: list[Row], base: list[Row]) -> dict[str, Any]:
    """Returns the numbers of one variant from its test rows; `base` are the run's own.

    n, samples, dice (mean), seconds (of a case); per measure mean, rho, p, n, ci95 and
    aurc; d_pw_change: value and ci95. Undefined numbers are None.
    """
    ids = [str(row["case"]) for row in rows]
    drawn = statistics.resampled_cases(ids, resamples=RESAMPLES, seed=SEED)
    pair = (_rho(rows, "d_pw", drawn), _rho(base, "d_pw", drawn))
    change = statistics.finding(statistics.mean_difference([pair]))
    return {
        "n": len(ids),
        "samples": rows[0]["n_samples"],
        "dice": _mean(cases_table.column(rows, "dice")),
        "seconds": _mean(cases_table.column(rows, "seconds")),
        "measures": {name: _measure(rows, name, drawn) for name in MEASURES},
        "d_pw_change": {"value": change.value, "ci95": change.ci95},
    }


def _rho(rows: list[Row], name: str, drawn: np.ndarray) -> Estimate:
    values, dice = cases_table.column(rows, name), cases_table.column(rows, "dice")
    return statistics.estimate_spearman(values, dice, drawn)


def _measure(rows: list[Row], name: str, drawn: np.ndarray) -> dict[str, Any]:
    values, dice = cases_table.column(rows, name), cases_table.column(rows, "dice")
    rho, p, n = statistics.spearman(values, dice)
    return {
        "mean": _mean(values),
        "rho": rho,
        "p": p,
        "n": n,
        "ci95": statistics.finding(_rho(rows, name, drawn)).ci95,
        "aurc": selective.areas(1.0 - dice, MEASURES[name].sign * values).aurc,
    }


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def table(run: str, described: Sequence[tuple[Variant, dict[str, Any]]]) -> Table:
    """Returns a row per variant, with a caption that says how to read it.

    described: of each variant what `describe` returns, and its `work`.
    """
    header = ["choice", "value", "Dice", *(one.label for one in MEASURES.values())]
    header += ["change (95 %)"]
    header += [f"AURC {MEASURES[name].label}" for name in PAPER_MEASURES]
    rows = []
    for variant, found in described:
        measures = found["measures"]
        change = _change(found["d_pw_change"]) if variant.fields else "-"
        rows.append(
            [
                *(variant.group, variant.name, number(found["dice"], ".3f")),
                *(_shown(name, measures[name]) for name in MEASURES),
                change,
                *(number(measures[name]["aurc"], ".4f") for name in PAPER_MEASURES),
                *(number(found["seconds"]), number(found["work"])),
            ]
        )
    caption = _CAPTION.format(run=run, n=described[0][1]["n"])
    return Table("Variants", (*header, "s a case", "work"), rows, caption)


def _shown(name: str, one: dict[str, Any]) -> Cell:
    text = number(one["rho"])
    if one["ci95"] is None:
        return text
    ends = [MEASURES[name].sign * end for end in one["ci95"]]
    return Strong(text) if min(ends) > 0 else text


def _change(one: dict[str, Any]) -> str:
    if one["ci95"] is None:
        return UNDEFINED
    low, high = one["ci95"]
    return f"{one['value']:+.2f} ({low:+.2f} to {high:+.2f})"
