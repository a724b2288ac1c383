"""Claims of Hoebel et al. as contrasts of correlations, and a verdict on each.

The strength of a correlation is rho times the sign it has if the measure works (D_pw
rises with Dice, the others fall), so a correlation of the wrong sign is a weak one, not
a strong one. A claim says that one kind of cell (model and measure) is stronger than
another. The two kinds are paired by all else that describes a cell, and the contrast is
the mean difference over the pairs that were run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from unc_jax.study import statistics
from unc_jax.study.statistics import Estimate, Finding
from unc_jax.study.tables import Table
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

LEVEL = 0.05
# Of two measures, the one that the paper finds stronger first.
_STRONGER = (("d_pw", "cv"), ("u_labelled", "cv"), ("d_pw", "u_labelled"))


class Cell(NamedTuple):
    """A model and a measure, whose correlation with Dice is compared."""

    target: str
    loss: str
    size: str
    variant: str
    measure: str


class Claim(NamedTuple):
    """`stronger` and `weaker` fix fields of a cell; an empty `weaker` stands for 0."""

    text: str
    stronger: Mapping[str, str]
    weaker: Mapping[str, str]


class Verdict(NamedTuple):
    """The contrast of a claim; p is Holm's over all claims that could be tested."""

    claim: Claim
    verdict: str  # "supported" | "not supported" | "undecided" | "not tested"
    finding: Finding  # p as tested, before the correction
    p_holm: float | None
    pairs: int

    @property
    def sentence(self) -> str:
        if self.verdict == "not tested":
            return f"{self.claim.text}: not tested, no models or values to pair."
        one, p = self.finding, self.p_holm
        contrast = "mean strength" if not self.claim.weaker else "difference"
        return (
            f"{self.claim.text}: {self.verdict} ({contrast} {one.value:+.2f}, 95 % "
            f"interval {one.low:+.2f} to {one.high:+.2f}, Holm p = {p:.2g}, "
            f"{self.pairs} paired comparison{'s' if self.pairs > 1 else ''})."
        )


def _claims() -> tuple[Claim, ...]:
    tables = (("liver", "Table 1"), ("tumor", "Table 2"))
    claims = [claim for target, name in tables for claim in _within(target, name)]
    across = Claim("Table 2 > Table 1", {"target": "tumor"}, {"target": "liver"})
    return (*claims, across)


def _within(target: str, table: str) -> list[Claim]:
    label = {name: MEASURES[name].label for name in PAPER_MEASURES}
    contrasts = [
        ("wcc > soft Dice", {"loss": "wcc"}, {"loss": "dice"}),
        ("large > small", {"size": "large"}, {"size": "small"}),
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
        Claim(f"{table}, {text}", {"target": target, **stronger}, dict(weaker))
        for text, stronger, weaker in contrasts
        # The paper has no small patches for tumours.
        if not (target == "tumor" and "size" in stronger)
    ]


# Sections 3 and 4 of the paper. On D_pw > U_labelled for tumours it contradicts itself
# (section 3.2 has U_labelled strongest, the conclusion D_pw); the test is two-sided.
CLAIMS = _claims()


def judge(
    strengths: Mapping[Cell, Estimate], claims: Sequence[Claim] = CLAIMS
) -> list[Verdict]:
    """Returns a verdict on each claim, in order; cells without a value take no part.

    supported: the contrast is above 0 with Holm's p < 0.05; not supported: it is below
    0 with the same certainty; undecided: anything else. "not tested" where no pair of
    cells was run, or the contrast is undefined; those do not count in the correction.
    """
    defined = {c: one for c, one in strengths.items() if one.value is not None}
    contrasts = [_contrast(defined, claim) for claim in claims]
    findings = [statistics.finding(c) if n else _NOTHING for c, n in contrasts]
    adjusted = holm([one.p for one in findings])
    return [
        Verdict(claim, _verdict(one, p), one, p, pairs)
        for claim, one, p, (_, pairs) in zip(
            claims, findings, adjusted, contrasts, strict=True
        )
    ]


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
    """Returns the verdicts in statistics.json, a sentence each."""
    return Table(
        "The paper's claims",
        caption=(
            "Compared is strength: Spearman's rho with Dice, its sign turned for CV "
            "and U_labelled, so that a measure that works is positive. p is corrected "
            "for all claims together (Holm, 1979)."
        ),
        notes=[claim["sentence"] for claim in content["claims"]],
        closing=content["scope"],
    )


_NOTHING = Finding(None, None, None, None)


def _contrast(strengths: Mapping[Cell, Estimate], claim: Claim) -> tuple[Estimate, int]:
    pairs = []
    for cell, estimate in strengths.items():
        if any(getattr(cell, name) != v for name, v in claim.stronger.items()):
            continue
        if not claim.weaker:
            zero = Estimate(0.0, 0.0 * estimate.draws)
            pairs.append((estimate, zero))
            continue
        partner = cell._replace(**claim.weaker)
        if partner in strengths:
            pairs.append((estimate, strengths[partner]))
    if not pairs:
        return Estimate(None, np.empty(0)), 0
    return statistics.mean_difference(pairs), len(pairs)


def _verdict(one: Finding, p: float | None) -> str:
    if one.value is None or p is None:
        return "not tested"
    if p >= LEVEL:
        return "undecided"
    return "supported" if one.value > 0 else "not supported"
