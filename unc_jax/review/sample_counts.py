"""Numbers of samples of the cases of a review."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from unc_jax.study.cases_table import Row, with_warnings


def warn_of_other_counts(rows: Sequence[Row]) -> list[Row]:
    """Adds a warning to rows of cases with fewer or more samples than most others.

    Where there are fewer, a fold or a file is probably missing, and measures of fewer
    samples vary more; where there are more, another axis was perhaps read as theirs.
    """
    of_case = {row["case"]: int(row["n_samples"]) for row in rows if row["n_samples"]}
    ordered = sorted(of_case.values())

    def warned(row: Row) -> Row:
        """Returns the row, with the warning if most others have more, or fewer."""
        own = of_case.get(row["case"])
        if own is None:
            return row
        half = (len(ordered) - 1) / 2
        if len(ordered) - bisect_right(ordered, own) > half:
            words = f"fewer samples than most cases: {own}, others up to {ordered[-1]}"
        elif bisect_left(ordered, own) > half:
            words = f"more samples than most cases: {own}, others down to {ordered[0]}"
        else:
            return row
        return with_warnings(row, f"has {words}")

    return [warned(row) for row in rows]
