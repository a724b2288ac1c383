import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.losses import (
    soft_dice_from_logits,
    soft_dice_loss,
    weighted_categorical_crossentropy,
    weighted_crossentropy_from_logits,
)

P = jnp.array([0.9, 0.2, 0.6, 0.4]).reshape(1, 4, 1, 1)
T = jnp.array([1, 0, 0, 1], jnp.uint8).reshape(1, 4, 1, 1)
CONFUSION = ((0.1, 3.0), (3.0, 1.0))


def test_soft_dice_by_hand():
    # overlap 0.9 + 0.4, sums 2 and 2.1: 1 - (2.6 + 1) / (4.1 + 1)
    assert soft_dice_loss(P, T) == pytest.approx(1 - 3.6 / 5.1, abs=1e-6)
    assert soft_dice_loss(P, T, smooth=0.0) == pytest.approx(1 - 2.6 / 4.1, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "t", "expected"),
    [(1.0, 1, 0.0), (0.0, 0, 0.0), (0.0, 1, 1 - 1 / 9), (1.0, 0, 1 - 1 / 9)],
    ids=["perfect", "both empty", "all missed", "all false"],
)
def test_soft_dice_at_the_ends(p, t, expected):
    shape = (1, 2, 2, 2)
    loss, gradient = jax.value_and_grad(soft_dice_loss)(
        jnp.full(shape, p), jnp.full(shape, t)
    )
    assert loss == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(gradient).all()


def test_soft_dice_gradient_by_algebra():
    # d/dp of 1 - (2 O + s) / S is (-2 t S + (2 O + s)) / S^2
    gradient = jax.grad(soft_dice_loss)(P, T)
    expected = (-2 * np.array([1, 0, 0, 1]) * 5.1 + 3.6) / 5.1**2
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-5)


def test_crossentropy_by_hand():
    # true positive, true negative, false positive, false negative
    terms = -np.log([0.9, 0.8, 0.4, 0.4]) * [1.0, 0.1, 3.0, 3.0]
    loss = weighted_categorical_crossentropy(P, T, weights=CONFUSION)
    assert loss == pytest.approx(terms.mean(), rel=1e-5)


def test_unit_weights_are_plain_crossentropy():
    loss = weighted_categorical_crossentropy(P, T, weights=((1, 1), (1, 1)))
    assert loss == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.4]).mean(), rel=1e-5)


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("t", [0, 1])
def test_crossentropy_is_finite_at_certain_probabilities(p, t):
    loss, gradient = jax.value_and_grad(weighted_categorical_crossentropy)(
        jnp.full((1, 2, 2, 2), p), jnp.full((1, 2, 2, 2), t), weights=CONFUSION
    )
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("logit", [-1000.0, 0.0, 1000.0])
@pytest.mark.parametrize("t", [0, 1])
def test_logit_forms_are_finite_everywhere(logit, t):
    logits, labels = jnp.full((1, 2, 2, 2), logit), jnp.full((1, 2, 2, 2), t)
    for function in (
        soft_dice_from_logits,
        lambda x, y: weighted_crossentropy_from_logits(x, y, weights=CONFUSION),
    ):
        loss, gradient = jax.value_and_grad(function)(logits, labels)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("jit", [False, True], ids=["no jit", "jit"])
def test_logit_forms_agree_with_probabilities(jit):
    logits = jnp.log(P) - jnp.log1p(-P)
    both = (
        (soft_dice_loss, soft_dice_from_logits),
        (
            lambda p, t: weighted_categorical_crossentropy(p, t, weights=CONFUSION),
            lambda x, t: weighted_crossentropy_from_logits(x, t, weights=CONFUSION),
        ),
    )
    for of_probabilities, of_logits in both:
        if jit:
            of_probabilities, of_logits = jax.jit(of_probabilities), jax.jit(of_logits)
        np.testing.assert_allclose(
            of_probabilities(P, T), of_logits(logits, T), rtol=1e-5
        )


def test_gradient_by_finite_differences():
    # Away from 0.5, where the confusion weights jump by design.
    def loss(p):
        return weighted_categorical_crossentropy(p, T, weights=CONFUSION)

    gradient = jax.grad(loss)(P)
    for index in range(4):
        step = jnp.zeros_like(P).at[0, index, 0, 0].set(1e-2)
        slope = (loss(P + step) - loss(P - step)) / 2e-2
        assert gradient[0, index, 0, 0] == pytest.approx(float(slope), rel=1e-2)
