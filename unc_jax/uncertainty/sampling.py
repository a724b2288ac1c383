"""Monte Carlo dropout over a volume: N thinned networks in one jitted call."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax.errors import InputError
from unc_jax.segmentation.sliding import build_sweep
from unc_jax.segmentation.unet import UNet3D
from unc_jax.uncertainty import measures

MASK_SCOPES = ("cohort", "volume", "window")


class Prediction(NamedTuple):
    """What leaves the device for one volume.

    Attributes:
      mean: mean foreground probability over the samples, float32 (x, y, z).
      uncertainty: U(x) of the paper, float32 (x, y, z).
      masks: the N binarised samples, bit-packed along z, uint8 (n, x, y, ceil(z / 8)).
      volumes: voxels of each sample's mask, int (n,).
      u_labelled, u_labelled_binary, predictive_entropy, mutual_information: means over
        the voxels of the mean mask; NaN when it is empty.
      spread: largest difference between two samples' probabilities anywhere; 0 only
        when no dropout took place.
    """

    mean: np.ndarray
    uncertainty: np.ndarray
    masks: np.ndarray
    volumes: np.ndarray
    u_labelled: float
    u_labelled_binary: float
    predictive_entropy: float
    mutual_information: float
    spread: float


def volume_key(key: Array, case: int, mask_scope: str) -> Array:
    """The key of one case's samples.

    Under "cohort" every case is seen by the same N thinned networks, so that cases
    differ by what they show and not by the luck of their masks (common random numbers:
    Hammersley and Handscomb, 1964). Otherwise each case draws its own.
    """
    return key if mask_scope == "cohort" else jax.random.fold_in(key, case)


def sample_windows(
    model: UNet3D,
    variables,
    windows: Array,
    places: Array,
    keys: Array,
    *,
    mask_scope: str,
    chunk: int,
) -> Array:
    """N stochastic passes over a batch of windows, as one traceable call.

    What lies before the first dropout is computed once. The samples run under `vmap`,
    `chunk` at a time (`lax.map`): all at once suits an accelerator, one or two a CPU.

    Args:
      model, variables: the network; normalisation runs on its averages.
      windows: (b, x, y, z, 1).
      places: int[b], the windows' indices in the volume's grid.
      keys: typed keys (n,), one per sample.
      mask_scope: "window": fresh masks for each window of each sample; otherwise a
        sample is one thinned network, the same masks for every window.
      chunk: samples per vmap.

    Returns:
      Foreground probabilities (n, b, x, y, z), float32.
    """

    def one_window(key: Array, place: Array, shared) -> Array:
        # A batch of one, so that masks depend on the key and never on the batch.
        if mask_scope == "window":
            key = jax.random.fold_in(key, place)
        shared = jax.tree.map(lambda leaf: leaf[None], shared)
        logits = model.apply(
            variables,
            shared,
            train=False,
            dropout=True,
            rngs={"dropout": key},
            method="after_dropout",
        )
        return jax.nn.sigmoid(logits[0])

    shared = model.apply(variables, windows, train=False, method="before_dropout")
    one_sample = jax.vmap(one_window, in_axes=(None, 0, 0))
    return lax.map(lambda key: one_sample(key, places, shared), keys, batch_size=chunk)


def build_monte_carlo(
    model: UNet3D,
    *,
    samples: int,
    patch_shape: Sequence[int],
    overlap: float | Sequence[float],
    mask_scope: str,
    window_batch: int,
    chunk: int,
) -> Callable[..., Prediction]:
    """A function monte_carlo(variables, volume, key, on_windows=None) -> Prediction.

    Sample i of the volume draws its masks from fold_in(key, i). When the device runs
    out of memory the chunk shrinks (to a half, at last 1) and the volume starts again,
    with the same result: a sample's masks depend on its key alone.

    Raises:
      InputError: fewer than two samples, or an unknown mask scope.
    """
    if samples < 2:
        raise InputError(
            f"{samples} Monte Carlo samples have no spread; take 2 or more"
        )
    if mask_scope not in MASK_SCOPES:
        raise InputError(f"mask scope {mask_scope!r} is none of {MASK_SCOPES}")

    def build(chunk: int) -> Callable[..., Array]:
        def window_function(windows, places, variables, keys):
            return sample_windows(
                model,
                variables,
                windows,
                places,
                keys,
                mask_scope=mask_scope,
                chunk=chunk,
            )

        return build_sweep(
            window_function,
            outputs=samples,
            patch_shape=patch_shape,
            overlap=overlap,
            window_batch=window_batch,
        )

    chunks = [min(chunk, samples)]
    while chunks[-1] > 1:
        chunks.append(chunks[-1] // 2)
    sweeps = {size: build(size) for size in chunks}
    reduce = build_reduction()

    def monte_carlo(variables, volume, key, on_windows=None) -> Prediction:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(samples))
        while True:
            try:
                sweep = sweeps[chunks[0]]
                probabilities = sweep(volume, variables, keys, on_windows=on_windows)
                return reduce(probabilities)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or len(chunks) == 1:
                    raise
                chunks.pop(0)  # kept for the volumes that follow

    return monte_carlo


def build_reduction() -> Callable[[Array], Prediction]:
    """A function from samples (n, x, y, z) on the device to their Prediction.

    One jitted program; what it returns is all that leaves the device.
    """
    reduce = jax.jit(_reduce)
    return lambda probabilities: _to_host(reduce(probabilities))


def _reduce(probabilities: Array) -> dict[str, Array]:
    """The fields of `Prediction` from the samples (n, x, y, z), still on the device."""
    mean = measures.mean_probability(probabilities)
    uncertainty = measures.voxelwise_uncertainty(probabilities)
    expected = measures.expected_entropy(probabilities)
    predictive = measures.binary_entropy(mean)
    masks = probabilities >= measures.THRESHOLD
    spread = jnp.max(probabilities, axis=0) - jnp.min(probabilities, axis=0)
    return {
        "mean": mean,
        "uncertainty": uncertainty,
        "masks": jnp.packbits(masks, axis=-1),
        "volumes": measures.sample_volumes(probabilities),
        "u_labelled": measures.labelled_mean(uncertainty, mean),
        "u_labelled_binary": measures.labelled_mean(expected, mean),
        "predictive_entropy": measures.labelled_mean(predictive, mean),
        "mutual_information": measures.labelled_mean(predictive - expected, mean),
        "spread": jnp.max(spread),
    }


def _to_host(fields: dict[str, Array]) -> Prediction:
    """One transfer; scalars as Python floats."""
    arrays: dict[str, Any] = jax.device_get(fields)
    for name, array in arrays.items():
        arrays[name] = array if array.ndim else float(array)
    return Prediction(**arrays)
