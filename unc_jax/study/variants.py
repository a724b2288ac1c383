"""Variants of an evaluation: one trained run with other evaluation settings.

Each variant changes one setting of a run's evaluation; nothing is trained again.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from unc_jax.data import patches
from unc_jax.study import selective, split_half, statistics
from unc_jax.study.appraisal import resampled
from unc_jax.study.cases_table import Row, column
from unc_jax.study.tables import Cell, Strong, Table, interval, number
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
# An ensemble's networks keep the rates that they were trained with, and one of
# single passes has no masks to choose. Mirrored passes are without dropout.
_OF_ONE_NETWORK = ("dropout rate", "dropout kind", "source")
_OF_MASKS = ("mask scope", "samples N")
_OF_DROPOUT = (*_OF_MASKS, "dropout rate", "dropout kind")
_CAPTION = (
    "{run}: {n} test cases, one choice of the evaluation changed at a time. Columns of "
    "measures: Spearman's rho with Dice, bold where its 95 % bootstrap interval lies "
    "on the side of a measure that works. Change: rho of D_pw less that of the run as "
    "evaluated, same resamples of cases. AUGRC, AURC: areas under the curve of "
    "generalised risk and the risk-coverage curve, lower is better. Reliability: "
    "expected correlation of the measure with itself on N other samples, 0 to 1. Work: "
    "voxels of windows per voxel of the volume, for one sample."
)


Described = tuple["Variant", dict[str, Any]]  # and what `describe` found


class Variant(NamedTuple):
    """A variant: `fields` that replace those of the run's config; {} for the run."""

    group: str
    name: str
    fields: dict[str, Any]

    @property
    def folder(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "_", f"{self.group} {self.name}".lower())


def variants(config: dict[str, Any], members: Sequence[str] = ()) -> list[Variant]:
    """Lists the run as evaluated, followed by every other value of each setting.

    config: flat config of the run; settings that an ensemble lacks are left out.
    members: run folders of an ensemble; with two or more the ensemble is a variant.
    """
    listed = [Variant("as evaluated", "", {})]
    without = _OF_ONE_NETWORK if config.get("evaluate.members") else ()
    without += {"ensemble": _OF_MASKS, "flips": _OF_DROPOUT}.get(
        config.get("evaluate.source", "dropout"), ()
    )
    for group, (field, values) in _CHOICES.items():
        if group in without:
            continue
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
    """Returns the voxels that the network computes per voxel of the volume."""
    padded = patches.padded_shape(volume_shape, window)
    count = len(patches.window_corners(padded, window, overlap))
    return count * math.prod(window) / math.prod(volume_shape)


def describe(rows: list[Row], base: list[Row]) -> dict[str, Any]:
    """Returns the numbers of one variant from its test rows; `base` are the run's own.

    n, samples, dice (mean), seconds (of a case); per measure mean, rho, p, n, ci95,
    augrc, aurc, e_aurc and reliability; d_pw_change: value and ci95. Undefined numbers
    are None.
    """
    drawn = resampled(rows)
    dice = column(rows, "dice")
    measures = {}
    for name, measure in MEASURES.items():
        values = column(rows, name)
        measures[name] = {
            "mean": statistics.mean(values),
            **statistics.correlate(values, dice, drawn),
            **selective.areas(1.0 - dice, measure.sign * values),
            "reliability": split_half.describe(
                split_half.estimate(rows, name, drawn), split_half.samples_of(rows)
            ),
        }
    pair = [
        statistics.estimate_spearman(column(own, "d_pw"), column(own, "dice"), drawn)
        for own in (rows, base)
    ]
    change = statistics.finding(statistics.mean_difference([(pair[0], pair[1])]))
    return {
        "n": len(rows),
        "samples": split_half.samples_of(rows),
        "dice": statistics.mean(dice),
        "seconds": statistics.mean(column(rows, "seconds")),
        "measures": measures,
        "d_pw_change": {"value": change["value"], "ci95": change["ci95"]},
    }


def table(run: str, described: Sequence[Described]) -> Table:
    """Returns a table with one row per variant, and an explanatory caption.

    described: each variant with the result of `describe` and its `work`.
    """
    areas = [(area, name) for area in ("augrc", "aurc") for name in PAPER_MEASURES]
    header = ["choice", "value", "Dice"]
    header += [f"{area.upper()} {MEASURES[name].label}" for area, name in areas]
    header += [*(one.label for one in MEASURES.values()), "change (95 %)"]
    header += [split_half.HEADER]
    rows = []
    for variant, found in described:
        measures = found["measures"]
        change = _change(found["d_pw_change"]) if variant.fields else "-"
        rows.append(
            [
                *(variant.group, variant.name, number(found["dice"], ".3f")),
                *(number(measures[name][area], ".4f") for area, name in areas),
                *(_shown(name, measures[name]) for name in MEASURES),
                change,
                split_half.cell_of_paper_measures(measures),
                *(number(found["seconds"]), number(found["work"])),
            ]
        )
    caption = _CAPTION.format(run=run, n=described[0][1]["n"])
    return Table("Variants", (*header, "s a case", "work"), rows, caption)


def _shown(name: str, one: dict[str, Any]) -> Cell:
    text, ends = number(one["rho"]), one["ci95"] or [0]
    works = min(MEASURES[name].sign * end for end in ends) > 0
    return Strong(text) if works else text


def _change(one: dict[str, Any]) -> str:
    form = f"{one['value']:+.2f} ({{:+.2f}} to {{:+.2f}})" if one["ci95"] else ""
    return interval(one["ci95"], form)
