"""Numbers of samples of the cases of a review."""

from bisect import bisect_right
from collections.abc import Sequence

from unc_jax.study.cases_table import Row, with_warnings


def warn_of_fewer(rows: Sequence[Row]) -> list[Row]:
    """Adds a warning to rows of cases with fewer samples than most other cases.

    A fold or a file is probably missing, and measures of fewer samples vary more.
    """
    of_case = {row["case"]: int(row["n_samples"]) for row in rows if row["n_samples"]}
    ordered = sorted(of_case.values())

    def warned(row: Row) -> Row:
        """Returns the row, with the warning if most others have more samples."""
        own = of_case.get(row["case"])
        if own is None or len(ordered) - bisect_right(ordered, own) <= (
            (len(ordered) - 1) / 2
        ):
            return row
        words = f"has fewer samples than most cases: {own}, others up to {ordered[-1]}"
        return with_warnings(row, words)

    return [warned(row) for row in rows]
