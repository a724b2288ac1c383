"""Monte Carlo dropout over a volume: N thinned networks in one jitted call."""

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
from unc_jax.segmentation.unet import UNet3D
from unc_jax.uncertainty import thinning
from unc_jax.uncertainty.prediction import Prediction, reduce_samples

MASK_SCOPES = ("cohort", "volume", "window")

# Thinned networks with more than this share of the work are no faster than masked
# ones: odd widths leave vector units idle, and some samples need all channels anyway.
_WORTH_THINNING = 0.65


def volume_key(key: Array, case: int, mask_scope: str) -> Array:
    """The key of one case's samples.

    Under "cohort" every case is seen by the same N thinned networks, so that cases
    differ by what they show and not by the luck of their masks (common random numbers:
    Hammersley and Handscomb, 1964). Otherwise each case draws its own.
    """
    return key if mask_scope == "cohort" else jax.random.fold_in(key, case)


def default_chunk(chunk: int, samples: int) -> int:
    """Samples at a time: `chunk`; for 0 all on an accelerator, one on a CPU."""
    return chunk or (1 if jax.default_backend() == "cpu" else samples)


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

    of_sample = _of_windows if mask_scope == "window" else _of_batch
    shared = model.apply(variables, windows, train=False, method="before_dropout")

    def one_sample(key: Array) -> Array:
        return jax.nn.sigmoid(of_sample(model, variables, shared, places, key))

    if len(keys) <= chunk:
        return jax.vmap(one_sample)(keys)
    return lax.map(one_sample, keys, batch_size=chunk)


def _of_batch(model: UNet3D, variables, shared, places: Array, key: Array) -> Array:
    """Logits (b, x, y, z) of one thinned network."""
    logits: Any = model.clone(one_mask=True).apply(
        variables,
        shared,
        train=False,
        dropout=True,
        rngs={"dropout": key},
        method="after_dropout",
    )
    return logits


def _of_windows(model: UNet3D, variables, shared, places: Array, key: Array) -> Array:
    """Logits (b, x, y, z), of another thinned network for each window."""

    def one_window(place: Array, shared) -> Array:
        # A batch of one, so that masks depend on the place and never on the batch.
        own = jax.random.fold_in(key, place)
        one = jax.tree.map(lambda leaf: leaf[None], shared)
        return _of_batch(model, variables, one, places, own)[0]

    return jax.vmap(one_window)(places, shared)


def build_monte_carlo(
    model: UNet3D,
    *,
    samples: int,
    patch_shape: Sequence[int],
    overlap: float | Sequence[float],
    mask_scope: str,
    window_batch: int,
    chunk: int,
    halo: Sequence[int] = (0, 0, 0),
) -> Callable[..., Prediction]:
    """A function monte_carlo(variables, volume, key, on_windows=None) -> Prediction.

    Sample i of the volume draws its masks from fold_in(key, i). `chunk` samples at a
    time go over the volume, so memory depends on the chunk and not on `samples`. When
    the device runs out of it the chunk shrinks (to a half, at last 1) and the volume
    starts again, with the same result: a sample's masks depend on its key alone.

    Where masks hold for the whole volume and enough channels are dropped to save a
    third of the work, samples are computed as thinned networks (`thinning`): the same
    up to rounding.

    Raises:
      InputError: fewer than two samples, or an unknown mask scope.
    """
    if samples < 2:
        raise InputError(
            f"{samples} Monte Carlo samples have no spread; take 2 or more"
        )
    if mask_scope not in MASK_SCOPES:
        raise InputError(f"mask scope {mask_scope!r} is none of {MASK_SCOPES}")
    grid = {
        "patch_shape": patch_shape,
        "overlap": overlap,
        "window_batch": window_batch,
        "halo": halo,
    }
    chunks = [min(chunk, samples)]
    while chunks[-1] > 1:
        chunks.append(chunks[-1] // 2)
    thinned = mask_scope != "window" and thinning.can_thin(model)
    build = functools.partial(_build_thinned if thinned else _build_masked, model)
    passes = {size: build(mask_scope, size, grid) for size in chunks}

    def draw(variables, volume, key, on_windows) -> Iterator[Array]:
        chunk = chunks[0]
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(samples))
        starts = range(0, samples, chunk)
        for start in starts:
            places = np.minimum(np.arange(start, start + chunk), samples - 1)

            def on_some(done: int, total: int, before: int = start // chunk) -> None:
                if on_windows is not None:
                    on_windows(before * total + done, len(starts) * total)

            drawn = passes[chunk](variables, volume, keys[places], on_some)
            yield drawn[: samples - start]

    def monte_carlo(variables, volume, key, on_windows=None) -> Prediction:
        volume = devices.replicate(np.asarray(volume, np.float32), own=True)
        while True:
            try:
                return reduce_samples(draw(variables, volume, key, on_windows))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or len(chunks) == 1:
                    raise
                chunks.pop(0)  # kept for the volumes that follow

    return monte_carlo


# (variables, volume, keys (k,), on_windows) -> probabilities (k, x, y, z)
_Pass = Callable[..., Array]


def _build_masked(model: UNet3D, mask_scope: str, chunk: int, grid: dict) -> _Pass:
    """Samples by the network with its masks on."""

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

    sweep = build_sweep(window_function, outputs=chunk, **grid)
    return lambda variables, volume, keys, on_windows: sweep(
        volume, variables, keys, on_windows=on_windows
    )


def _build_thinned(model: UNet3D, mask_scope: str, chunk: int, grid: dict) -> _Pass:
    """Samples by thinned networks; those that no width holds, by the masked one."""
    masked = _build_masked(model, mask_scope, chunk, grid)
    if thinning.share_of_work(model) > _WORTH_THINNING:
        return masked
    widths = thinning.thin_widths(model)

    def masks_of(variables, key):
        return model.apply(variables, rngs={"dropout": key}, method="dropout_masks")

    def one_network(windows: Array, network: thinning.ThinNetwork) -> Array:
        return jax.nn.sigmoid(thinning.apply_thin(network, windows, model.dtype))

    def window_function(windows, places, networks):
        if chunk == 1:  # on a CPU, XLA runs the body of a loop at half the speed
            only = jax.tree.map(lambda leaf: leaf[0], networks)
            return one_network(windows, only)[None]
        # Not vmap: convolutions whose kernels differ become slow grouped ones.
        return lax.map(functools.partial(one_network, windows), networks)

    draw_masks = jax.jit(jax.vmap(masks_of, in_axes=(None, 0)))
    gather = jax.jit(jax.vmap(thinning.thin, in_axes=(None, 0, 0)))
    sweep = build_sweep(window_function, outputs=chunk, **grid)

    def run(variables, volume, keys, on_windows) -> Array:
        masks = draw_masks(variables, keys)
        kept = thinning.kept_channels(masks, widths)
        if kept is None:
            return masked(variables, volume, keys, on_windows)
        return sweep(volume, gather(variables, masks, kept), on_windows=on_windows)

    return run
