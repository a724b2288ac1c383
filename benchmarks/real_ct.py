"""The demo's model on real CT it has never seen: Dice where there is a mask.

python benchmarks/real_ct.py --run runs/demo FOLDER ...

Run launch/demo.sh first. Each FOLDER is a Decathlon set; its scans are segmented by
`unc_jax.predict`. Prints a Markdown table, Dice on the scan's own grid; cases without a
mask have none.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.data import dataset, nifti
from unc_jax.study import cases_table, metrics
from unc_jax.study.cases_table import REVIEW_COLUMNS

_LIVER = (1, 2)
_COLUMNS = ("predicted_dice", "dice_lower", "d_pw", "cv", "u_labelled", "volume_ml")


def review(run: Path, folder: Path, output: Path) -> dict[str, cases_table.Row]:
    """Rows of `predict`, by case."""
    flags = ["--run", str(run), "--input", str(folder), "--output", str(output)]
    command = [sys.executable, "-m", "unc_jax.predict", *flags]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1], stdout=2)
    return {
        str(row["case"]): row
        for row in cases_table.read_rows(output / "cases.csv", REVIEW_COLUMNS)
    }


def dice_of(case: dataset.Case, output: Path) -> str:
    if case.label is None:
        return "-"
    mask = nifti.read(output / case.id / "mask.nii.gz", labels=True).array > 0
    label = nifti.read(case.label, labels=True).array
    return f"{metrics.dice(mask, (label == _LIVER[0]) | (label == _LIVER[1])):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    print(f"| case | Dice | {' | '.join(_COLUMNS)} | unlike |")
    print(f"|{' --- |' * (3 + len(_COLUMNS))}")
    for folder in arguments.folders:
        folder = folder.resolve()
        task = dataset.read_task(folder)
        with tempfile.TemporaryDirectory() as name:
            output = Path(name)
            rows = review(arguments.run.resolve(), folder, output)
            for case in (*task.training, *task.test):
                row = rows[case.id]
                found = [row[column] for column in _COLUMNS]
                numbers = ["-" if one is None else f"{one:.4g}" for one in found]
                name = f"{folder.name}/{case.id}"
                cells = [name, dice_of(case, output), *numbers, str(row["unlike"])]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
