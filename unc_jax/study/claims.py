"""Claims of Hoebel et al. as contrasts of correlations, and a verdict on each.

A claim says that one kind of cell (model and measure) is stronger than another
(`strength`). Cells of the two kinds are paired by all their other fields; the contrast
is the mean difference over the evaluated pairs, each on the cases that both cells have.
The paper's claims are about single networks. If ensembles of them were evaluated too,
further claims say that each ensemble is stronger.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from unc_jax.study import statistics
from unc_jax.study.statistics import Estimate
from unc_jax.study.strength import Cell, Pair
from unc_jax.study.tables import Table
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

LEVEL = 0.05
_ALONE = {"ensemble": ""}
_TABLES = {"liver": "Table 1", "tumor": "Table 2"}
# Of two measures, the one that the paper finds stronger first.
_STRONGER = (("d_pw", "cv"), ("u_labelled", "cv"), ("d_pw", "u_labelled"))


class Claim(NamedTuple):
    """A claim that cells with the fields `stronger` exceed those with `weaker`, or 0.

    An empty `weaker` compares with 0.
    """

    text: str
    stronger: Mapping[str, str]
    weaker: Mapping[str, str]


def _within(target: str, table: str) -> list[Claim]:
    label = {name: MEASURES[name].label for name in PAPER_MEASURES}
    contrasts = [
        ("wcc > soft Dice", {"loss": "wcc"}, {"loss": "dice"}),
        *(
            # The paper has no small patches for tumours.
            [("large > small", {"size": "large"}, {"size": "small"})]
            if target == "liver"
            else []
        ),
        *(
            (f"{label[one]} > {label[two]}", {"measure": one}, {"measure": two})
            for one, two in _STRONGER
        ),
        *(
            (f"{label[one]} tells good from bad", {"measure": one}, {})
            for one in PAPER_MEASURES
        ),
    ]
    return [
        Claim(f"{table}, {text}", {"target": target, **_ALONE, **stronger}, weaker)
        for text, stronger, weaker in contrasts
    ]


# Sections 3 and 4 of the paper. On D_pw > U_labelled for tumours it contradicts itself
# (section 3.2 has U_labelled strongest, the conclusion D_pw); the test is two-sided.
CLAIMS = (
    *(claim for target, table in _TABLES.items() for claim in _within(target, table)),
    Claim("Table 2 > Table 1", {"target": "tumor", **_ALONE}, {"target": "liver"}),
)


def of_ensembles(cells: Iterable[Cell]) -> list[Claim]:
    """Returns the claims that the cells' ensembles are stronger than one network."""
    kinds = {(one.target, one.ensemble): None for one in cells if one.ensemble}
    return [
        Claim(
            f"{_TABLES[target]}, {ensemble} > MC dropout, {MEASURES[name].label}",
            {"target": target, "ensemble": ensemble, "measure": name},
            _ALONE,
        )
        for target, ensemble in kinds
        for name in PAPER_MEASURES
    ]


def judge(
    strengths: Mapping[Cell, Estimate],
    paired: Callable[[Cell, Cell], Pair],
    claims: Sequence[Claim] = CLAIMS,
) -> list[dict[str, Any]]:
    """Returns a verdict on each claim, in order; cells without a value are left out.

    supported: the contrast is above 0 with Holm's p < 0.05; not supported: it is below
    0 with Holm's p < 0.05; undecided: otherwise; not tested: no pair of cells was
    evaluated, and the claim does not count in the correction.

    paired: from `strength.build_paired`. Each: claim (its text), verdict, value, ci95
    and p_bootstrap of the contrast, p_holm (over all claims tested), pairs (their
    number), cases (of each pair of cells) and a sentence.
    """
    defined = {c: one for c, one in strengths.items() if one.value is not None}
    matched = [_matched(defined, paired, claim) for claim in claims]
    found = [_difference(pairs) for pairs in matched]
    adjusted = holm([one["p_bootstrap"] for one in found])
    verdicts = []
    for claim, pairs, one, p in zip(claims, matched, found, adjusted, strict=True):
        verdict = {"claim": claim.text, "verdict": _verdict(one["value"], p), **one}
        verdict |= {"p_holm": p, "pairs": len(pairs)}
        if claim.weaker:
            verdict["cases"] = [pair.cases for pair in pairs]
        verdicts.append({**verdict, "sentence": _sentence(claim, verdict)})
    return verdicts


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns Holm's step-down adjusted p values (1979); None stays None, uncounted.

    Of m values in rising order the i-th (from 0) becomes the largest (m - j) p_j of
    j <= i, at most 1: the family-wise error is kept under any dependence.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for place, (p, index) in enumerate(tested):
        floor = max(floor, min(1.0, (len(tested) - place) * p))
        adjusted[index] = floor
    return adjusted


def claims_table(content: dict[str, Any]) -> Table:
    """Returns the verdicts in statistics.json as sentences."""
    beside = ""
    if any(model["source"] for model in content["models"]):
        beside = (
            " Claims on ensembles are not the paper's; they are compared with the mean "
            "over single networks of the same config, on the same cases."
        )
    return Table(
        "The paper's claims",
        caption=(
            "Strength is compared: Spearman's rho with Dice, with the sign reversed "
            "for CV and U_labelled, so that useful measures are positive. p is "
            f"corrected for all claims together (Holm, 1979).{beside}"
        ),
        notes=[claim["sentence"] for claim in content["claims"]],
        closing=content["scope"],
    )


def _matched(
    strengths: Mapping[Cell, Estimate],
    paired: Callable[[Cell, Cell], Pair],
    claim: Claim,
) -> list[Pair]:
    pairs = []
    for cell, estimate in strengths.items():
        if not _is_known(estimate):  # too few cases with both values
            continue
        if any(getattr(cell, name) != v for name, v in claim.stronger.items()):
            continue
        if not claim.weaker:
            none = Estimate(0.0, np.zeros_like(estimate.draws))
            pairs.append(Pair(estimate, none, 0))
        elif (partner := cell._replace(**claim.weaker)) in strengths:
            pairs.append(paired(cell, partner))
    return [one for one in pairs if _is_known(one.first) and _is_known(one.second)]


def _is_known(estimate: Estimate) -> bool:
    return estimate.value is not None and bool(np.isfinite(estimate.draws).any())


def _difference(pairs: Sequence[Pair]) -> dict[str, Any]:
    contrast = statistics.mean_difference([(one.first, one.second) for one in pairs])
    return statistics.finding(contrast)


def _verdict(value: float | None, p: float | None) -> str:
    if value is None or p is None:
        return "not tested"
    if p >= LEVEL:
        return "undecided"
    return "supported" if value > 0 else "not supported"


def _sentence(claim: Claim, one: dict[str, Any]) -> str:
    if one["verdict"] == "not tested":
        return f"{claim.text}: not tested, no models or values to pair."
    (low, high), pairs = one["ci95"], one["pairs"]
    contrast, of = "mean strength", ""
    if cases := one.get("cases"):
        fewest, most = min(cases), max(cases)
        numbers = f"{fewest} to {most}" if fewest < most else f"{most}"
        contrast, of = "difference", f" of {numbers} cases"
    return (
        f"{claim.text}: {one['verdict']} ({contrast} {one['value']:+.2f}, 95 % "
        f"interval {low:+.2f} to {high:+.2f}, Holm p = {one['p_holm']:.2g}, "
        f"{pairs} paired comparison{'s' if pairs > 1 else ''}{of})."
    )
