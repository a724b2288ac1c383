"""How much of the uncertainty measures is the luck of the dropout masks.

    python benchmarks/mask_luck.py RUN PREPARED_COHORT

Measures the validation and test cases twice under each mask scope, with masks drawn
anew, and prints per measure: rank correlation of the two draws over the cases, of each
draw with Dice, and the spread between draws beside the standard error of the rows.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.data.cohort import open_cohort
from unc_jax.keys import key_for
from unc_jax.segmentation.progress import Progress
from unc_jax.study.metrics import dice
from unc_jax.study.predictor import chunk_of, load_predictor, window_shape
from unc_jax.study.run_folder import read_config
from unc_jax.study.tables import Table, markdown
from unc_jax.uncertainty.measures import (
    MEASURES,
    PAPER_MEASURES,
    THRESHOLD,
    standard_error,
)
from unc_jax.uncertainty.sampling import build_monte_carlo, volume_key

SCOPES = ("volume", "cohort")
DRAWS = (0, 1)


def measured(run: Path, cohort: Path) -> dict[str, np.ndarray]:
    """Returns per scope (draws, cases, 1 + 2 measures): Dice, values, errors."""
    config, prepared = read_config(run), open_cohort(cohort)
    shape = prepared.images.shape[1:]
    predictor, evaluation = load_predictor(config, run, shape), config.evaluate
    cases = (*prepared.split.validation, *prepared.split.test)
    held_out = [prepared.ids.index(case) for case in cases]
    found = {}
    for scope in SCOPES:
        monte_carlo = build_monte_carlo(
            predictor.model,
            samples=evaluation.samples,
            mask_scope=scope,
            chunk=chunk_of(config, window_shape(config, shape)),
            patch_shape=window_shape(config, shape),
            overlap=evaluation.overlap,
            window_batch=evaluation.window_batch,
        )
        progress = Progress(scope, len(DRAWS) * len(held_out), "case")
        rows = []
        for draw in DRAWS:
            key = key_for(draw, "monte_carlo")
            for index in held_out:
                own = volume_key(key, index, scope)
                image = prepared.images[index]
                one = monte_carlo(predictor.networks[0], image, own)
                used = [MEASURES[name] for name in PAPER_MEASURES]
                rows.append(
                    [dice(one.mean >= THRESHOLD, prepared.labels[index])]
                    + [measure.of(one) for measure in used]
                    + [standard_error(one, name) for name in PAPER_MEASURES]
                )
                progress(len(rows))
        found[scope] = np.array(rows).reshape(len(DRAWS), len(held_out), -1)
    return found


def table(found: dict[str, np.ndarray]) -> Table:
    """Returns the table of all scopes and measures."""
    rows = []
    for scope, values in found.items():
        for number, name in enumerate(PAPER_MEASURES, start=1):
            one, two = values[:, :, number]
            between = np.sqrt(np.nanmean((one - two) ** 2) / 2)
            stated = np.nanmean(values[:, :, number + len(PAPER_MEASURES)])
            rho = [
                spearmanr(draw[:, 0], draw[:, number], nan_policy="omit").statistic
                for draw in values
            ]
            alike = spearmanr(one, two, nan_policy="omit").statistic
            numbers = [f"{alike:.2f}", *(f"{r:.2f}" for r in rho)]
            numbers += [f"{between:.3g}", f"{stated:.3g}"]
            rows.append([scope, MEASURES[name].label, *numbers])
    header = ("scope", "measure", "draws alike", "rho, draw 1", "rho, draw 2")
    header += ("sd between draws", "stated error")
    return Table("", header, rows, "")


if __name__ == "__main__":
    print(markdown([table(measured(Path(sys.argv[1]), Path(sys.argv[2])))]))
