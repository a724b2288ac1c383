"""A loss, a network and a measure of one's own are one entry in one table each."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.check_config import check_config
from unc_jax.segmentation.losses import LOSSES
from unc_jax.segmentation.models import MODELS, build_model
from unc_jax.segmentation.train import build_train_step, create_state, variables_of


def train_two_steps(config):
    """Checks the config and trains; returns the model, its variables, the losses."""
    check_config(config)
    model = build_model(config)
    state, losses = create_state(config, model), []
    step = jax.jit(build_train_step(config, model))
    images = jax.random.normal(jax.random.key(0), (2, *config.train.patch_shape))
    for _ in range(2):
        state, loss = step(state, (images, (images > 1).astype(jnp.uint8)))
        losses.append(float(loss))
    return model, variables_of(state), losses


class OneConvolution(nn.Module):
    """Logistic regression on 3x3x3 neighbours, with dropout of the logits' weights."""

    dropout_rate: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, *, train, dropout):
        x = nn.Conv(4, (3, 3, 3), dtype=self.dtype)(x)
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not dropout)
        return nn.Dense(1)(x)[..., 0]


def build_one_convolution(*, dropout_rate, dtype, **unused):
    return OneConvolution(dropout_rate, dtype)


@pytest.fixture
def one_convolution(monkeypatch, tiny_config):
    monkeypatch.setitem(MODELS, "one convolution", build_one_convolution)
    tiny_config.model.name = "one convolution"
    tiny_config.model.norm = "none"
    return tiny_config


def test_a_network_of_ones_own_is_trained_and_sampled(one_convolution):
    from unc_jax.uncertainty.sampling import build_monte_carlo

    model, variables, losses = train_two_steps(one_convolution)
    assert isinstance(model, OneConvolution)
    assert losses[1] < losses[0]
    monte_carlo = build_monte_carlo(
        model, samples=2, mask_scope="volume", chunk=2, window_batch=2,
        patch_shape=(8, 8, 4), overlap=0.25,
    )  # fmt: skip
    volume = np.random.default_rng(0).standard_normal((8, 8, 8))
    prediction = monte_carlo(variables, volume, jax.random.key(0))
    assert prediction.mean.shape == volume.shape
    assert not prediction.identical


def test_a_loss_of_ones_own_is_what_training_minimises(one_convolution, monkeypatch):
    def brier(logits, labels, loss):
        return loss.wcc_weights[1][1] * jnp.mean((jax.nn.sigmoid(logits) - labels) ** 2)

    monkeypatch.setitem(LOSSES, "brier", brier)
    one_convolution.model.dropout_rate = 0.0
    one_convolution.loss.name = "brier"
    one_convolution.loss.wcc_weights = ((1.0, 1.0), (7.0, 7.0))
    model = build_model(one_convolution)
    variables = variables_of(create_state(one_convolution, model))
    _, _, losses = train_two_steps(one_convolution)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    logits = model.apply(variables, images[..., None], train=False, dropout=False)
    expected = 7 * float(jnp.mean((jax.nn.sigmoid(logits) - (images > 1)) ** 2))
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert losses[1] < losses[0]


TOY_MEASURE = """
import sys
from pathlib import Path
import jax.numpy as jnp
import numpy as np
from unc_jax.uncertainty.measures import MEASURES, Measure

MEASURES["largest_uncertainty"] = Measure(
    "largest U", "largest uncertainty of a voxel", "nats", -1, False,
    lambda prediction: float(prediction.uncertainty.max()),
)

from tests.test_evaluate import evaluate, small_cohort, Predictor
from unc_jax.review.report import write_review_report
from unc_jax.study import appraisal, case_columns, cases_table

folder = Path(sys.argv[1])
rows = evaluate(Predictor(), small_cohort(), folder)
assert "largest_uncertainty" in appraisal.summarise(rows)["test"]["measures"]
listed = [
    cases_table.new_row(
        case_columns.REVIEW_COLUMNS, case=row["case"], status="ok", flag="no",
        largest_uncertainty=row["largest_uncertainty"],
    )
    for row in rows
]
write_review_report(
    folder / "report.html", listed, title="toy", facts={}, pictures=folder, known={},
    rule_text="",
)
"""


def test_a_measure_of_ones_own_is_a_column_of_tables_summary_and_report(tmp_path):
    """In a process of its own, where the entry stands before anything reads the
    table, as an entry in the source does."""
    command = [sys.executable, "-c", TOY_MEASURE, str(tmp_path)]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    root = Path(__file__).parents[1]
    subprocess.run(command, check=True, cwd=root, env=environment)
    rows = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert all(0 < float(row["largest_uncertainty"]) <= np.log(2) for row in rows)
    assert "largest U" in (tmp_path / "report.html").read_text()
