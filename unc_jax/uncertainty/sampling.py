"""Monte Carlo dropout over a volume: N stochastic passes in one jitted call."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax.errors import InputError
from unc_jax.segmentation import devices
from unc_jax.segmentation.sliding import build_sweep
from unc_jax.uncertainty.halves import HalfSums
from unc_jax.uncertainty.prediction import Prediction, reduce_samples

MASK_SCOPES = ("cohort", "volume", "window")

# Share of an accelerator's memory for activations; the volumes need the rest.
_SHARE = 0.6
# Arrays of a U-Net that are live at once, counted in arrays of full resolution with the
# channels of the first convolution: about 7 on an H200 (peak of ten samples).
_ALIVE = 10
# Most values of an array, because libraries count them in 32 bits. The largest array
# has twice the channels of the first convolution.
_COUNTED = 2**31 - 1


def volume_key(key: Array, case: int | None, mask_scope: str) -> Array:
    """Returns the random key of one case's samples.

    case: its index in the cohort; None for a scan outside it. With mask scope "cohort"
    all cases have the same key and thus the same N masks, so that differences between
    cases come from the images and not from the masks (common random numbers: Hammersley
    and Handscomb, 1964). Otherwise each case has its own key, and a scan without an
    index has that of "cohort", so that its result depends only on its voxels.
    """
    if mask_scope == "cohort" or case is None:
        return key
    return jax.random.fold_in(key, case)


def default_chunk(samples: int, *, values: int, bytes_each: int, memory: int) -> int:
    """Returns the fastest number of samples per pass.

    One on a CPU; on an accelerator as many as fit into its memory, at least one.

    values: voxels of a batch of windows times channels of the first convolution.
    bytes_each: size of a value. memory: of a device, in bytes.
    """
    if jax.default_backend() == "cpu":
        return 1
    fit = int(_SHARE * memory / (_ALIVE * bytes_each * values))
    return max(1, min(samples, fit, _COUNTED // (2 * values)))


def sample_windows(
    model,
    variables,
    windows: Array,
    places: Array,
    keys: Array,
    *,
    mask_scope: str,
    chunk: int,
) -> Array:
    """Passes a batch of windows through the network N times; can be jitted.

    The samples run under `vmap`, `chunk` at a time (`lax.map`): an accelerator is
    fastest with all samples at once, a CPU with one. Layers before the first dropout
    are the same for all samples, so `vmap` computes them once per chunk.

    Args:
      model, variables: the network; BatchNorm uses its running averages.
      windows: (b, x, y, z, 1).
      places: int (b,), indices of the windows in the volume's grid of windows.
      keys: typed keys (n,), one per sample.
      mask_scope: "window": new masks for each window of each sample; otherwise a
        sample uses the same masks for every window.
      chunk: samples per vmap.

    Returns:
      Foreground probabilities (n, b, x, y, z), float32.
    """

    def one_window(key: Array, window: Array, place: Array) -> Array:
        # A batch of one, so that masks depend on key and place, not on the batch.
        own = jax.random.fold_in(key, place) if mask_scope == "window" else key
        logits = model.apply(
            variables, window[None], train=False, dropout=True, rngs={"dropout": own}
        )
        return jax.nn.sigmoid(logits[0])

    def one_sample(key: Array) -> Array:
        return jax.vmap(one_window, in_axes=(None, 0, 0))(key, windows, places)

    if len(keys) <= chunk:
        return jax.vmap(one_sample)(keys)
    return lax.map(one_sample, keys, batch_size=chunk)


def build_monte_carlo(model, **settings: Any) -> Callable[..., Prediction]:
    """Builds monte_carlo(variables, volume, key) -> Prediction of one network.

    settings: of `build_monte_carlo_of_networks`.
    """
    of_networks = build_monte_carlo_of_networks(model, **settings)

    def monte_carlo(variables, volume, key) -> Prediction:
        return of_networks([variables], volume, [key])

    return monte_carlo


def build_monte_carlo_of_networks(
    model,
    *,
    samples: int,
    mask_scope: str,
    chunk: int,
    patch_shape: Sequence[int],
    overlap: float | Sequence[float],
    window_batch: int,
) -> Callable[..., Prediction]:
    """Builds monte_carlo(networks, volume, keys) -> Prediction.

    networks: variables of each network; keys: one per network; volume: (x, y, z). Each
    network gives `samples` samples, those of the first network first. Sample i of a
    network draws its masks from fold_in(its key, i). `chunk` samples are computed at a
    time, so memory depends on the chunk, not on `samples` or the number of networks.
    When the device runs out of memory, the chunk is halved for this and all later
    volumes and the volume is started again, with the same result, because a sample's
    masks depend only on its key.

    Raises:
      InputError: fewer than two samples, or an unknown mask scope.
    """
    if samples < 2:
        raise InputError(
            f"Monte Carlo samples: {samples}; at least 2 are needed for a spread"
        )
    if mask_scope not in MASK_SCOPES:
        raise InputError(f"mask scope {mask_scope!r} is not one of {MASK_SCOPES}")
    grid = {"patch_shape": patch_shape, "overlap": overlap}
    chunk = min(chunk, samples)

    @functools.cache
    def build_pass(chunk: int) -> Callable[..., Array]:
        def draw(windows, places, variables, keys) -> Array:
            scope = {"mask_scope": mask_scope, "chunk": chunk}
            return sample_windows(model, variables, windows, places, keys, **scope)

        return build_sweep(draw, outputs=chunk, window_batch=window_batch, **grid)

    def draw_all(networks, volume, keys) -> Iterator[Array]:
        for variables, key in zip(networks, keys, strict=True):
            sweep = functools.partial(build_pass(chunk), volume, variables)
            yield from _in_chunks(sweep, _keys_of_samples(key, samples), chunk)

    def monte_carlo(networks, volume, keys) -> Prediction:
        """Returns the prediction of a volume (x, y, z); halves a too large chunk."""
        nonlocal chunk
        volume = devices.replicate(np.asarray(volume, np.float32), own=True)
        while True:
            # Halves of samples of several networks would also differ by the training.
            halves = HalfSums(samples if len(networks) == 1 else 0)
            try:
                batches = halves.watch(draw_all(networks, volume, keys))
                return reduce_samples(batches)._replace(halves=halves.means())
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or chunk == 1:
                    raise
                chunk //= 2

    return monte_carlo


def _keys_of_samples(key: Array, samples: int) -> Array:
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(samples))


def _in_chunks(sweep: Callable[..., Array], keys: Array, chunk: int) -> Iterator[Array]:
    """Yields the samples of all keys in batches (k <= chunk, x, y, z).

    The last pass is padded with the last key, so that all passes use one program.
    """
    for start in range(0, len(keys), chunk):
        places = np.minimum(np.arange(start, start + chunk), len(keys) - 1)
        yield sweep(keys[places])[: len(keys) - start]
