"""The table of components (lesions), DIR/components.csv, and words of the report."""

from collections.abc import Sequence

from unc_jax.data.label_names import is_tumour
from unc_jax.study.cases_table import Row
from unc_jax.study.components import Component

FILE = "components.csv"
COLUMNS = (
    *("case", "structure", "component", "volume_ml", "diameter_mm"),
    *("x_mm", "y_mm", "z_mm", "presence", "d_pw", "u", "matched", "in_mask"),
)
MOST = 100  # of a structure, listed; noise has thousands
_SHOWN = 8  # in the report


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
            f"{row['volume_ml']:.3g} ml, {row['diameter_mm']:.0f} mm, "
            f"seen in {seen} of {samples} samples"
            + ", not in the reference"
            * (row["matched"] == "no")
        )
    more = len(rows) - len(lines)
    return [*lines, f"and {more} more in {FILE}"] if more else lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"
