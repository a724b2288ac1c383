"""One step of each kind at the paper's sizes: time and peak memory, on this machine.

python benchmarks/full_size.py [--features 32] [--only prepare,train,sample,volume]

Each step runs in a process of its own, so that its peak memory is its own. Prints a
Markdown table; times exclude compilation, which has its own column.
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

STEPS = ("prepare", "train", "sample", "volume")


def prepare(features: int) -> dict:
    """Prepares a drawn 512x512x400 scan, read from .nii.gz and prepared at 256^3."""
    from unc_jax.data import dataset, prepare_case
    from unc_jax.data.phantom import draw_cohort

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "Task"
        started = time.perf_counter()
        draw_cohort.write_cohort(root, cases=1, seed=29, raters=1)  # 400 slices
        drawn = time.perf_counter() - started
        case = dataset.read_task(root).training[0]
        recipe = prepare_case.Recipe(
            "liver", (256, 256, 256), (-120, 240), None, (1, 2), (2,), "population"
        )
        started = time.perf_counter()
        part = prepare_case.prepare_case(case, recipe)
        seconds = time.perf_counter() - started
    raw = "x".join(map(str, part.record["raw_shape"]))
    return {
        "what": f"prepare a {raw} scan at 256x256x256 (drawn in {drawn:.0f} s)",
        "seconds": seconds,
    }


def _network(features: int):
    import jax
    import jax.numpy as jnp

    from configs import liver_large_wcc
    from unc_jax.segmentation.models import build_model
    from unc_jax.segmentation.train import create_state, variables_of

    config = liver_large_wcc.get_config()
    config.model.features = features
    model = build_model(config)
    state = create_state(config, model)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return config, model, state, variables_of(state), count, jnp


def train(features: int) -> dict:
    """Times one update on one 128x128x16 patch."""
    import jax

    from unc_jax.segmentation.train import build_train_step

    config, model, state, _, count, jnp = _network(features)
    step = jax.jit(build_train_step(config, model), donate_argnums=0)
    images = jax.random.normal(jax.random.key(0), (1, 128, 128, 16))
    batch = images, (images > 1).astype(jnp.uint8)
    started = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch))
    first = time.perf_counter() - started
    times = []
    for _ in range(3):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        times.append(time.perf_counter() - started)
    seconds = sorted(times)[1]
    return {
        "what": f"training step, one 128x128x16 patch, {count:,} parameters",
        "seconds": seconds,
        "compile": first - seconds,
    }


def sample(features: int) -> dict:
    """Times ten samples of one window batch of 128x128x16."""
    import jax

    from unc_jax.uncertainty.sampling import sample_windows

    config, model, _, variables, count, jnp = _network(features)
    batch = config.evaluate.window_batch
    windows = jax.random.normal(jax.random.key(0), (batch, 128, 128, 16, 1))
    keys = jax.random.split(jax.random.key(1), 10)
    run = jax.jit(
        functools.partial(sample_windows, model, mask_scope="volume", chunk=1)
    )
    lowered = run.lower(variables, windows, jnp.arange(batch), keys)
    started = time.perf_counter()
    compiled = lowered.compile()
    compiling = time.perf_counter() - started
    started = time.perf_counter()
    jax.block_until_ready(compiled(variables, windows, jnp.arange(batch), keys))
    return {
        "what": f"10 samples of {batch} windows 128x128x16, {count:,} parameters",
        "seconds": time.perf_counter() - started,
        "compile": compiling,
    }


def volume(features: int) -> dict:
    """Times ten samples over a whole 256^3 volume, windows side by side."""
    import jax
    import numpy as np

    from unc_jax.uncertainty.sampling import build_monte_carlo

    config, model, _, variables, count, _ = _network(features)
    monte_carlo = build_monte_carlo(
        model,
        samples=10,
        patch_shape=config.train.patch_shape,
        overlap=0.0,
        mask_scope="volume",
        window_batch=config.evaluate.window_batch,
        chunk=1,
    )
    image = np.random.default_rng(0).standard_normal((256,) * 3, np.float32)
    started = time.perf_counter()
    prediction = monte_carlo(variables, image, jax.random.key(0))
    seconds = time.perf_counter() - started
    assert not prediction.identical
    return {
        "what": f"10 samples over 256x256x256, no overlap, {count:,} parameters",
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--only", default=",".join(STEPS))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        row = globals()[arguments.step](arguments.features)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**row, "peak_mb": peak}))
        return
    print(
        "| step | seconds | compile, s | peak memory, MB |\n| --- | --- | --- | --- |"
    )
    for step in arguments.only.split(","):
        command = [sys.executable, __file__, "--step", step]
        command += ["--features", str(arguments.features)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(out.stdout.splitlines()[-1])
        compiling = f"{row['compile']:.0f}" if "compile" in row else "-"
        print(
            f"| {row['what']} | {row['seconds']:.1f} | {compiling} "
            f"| {row['peak_mb']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
