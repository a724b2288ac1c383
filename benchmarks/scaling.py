"""What sharing the work over devices costs: weak and strong scaling, simulated.

python benchmarks/scaling.py [--devices 1,2,4,8] [--features 2] [--output FILE.md]

Simulated devices share the cores of this machine, so nothing here becomes faster by
having more of them: what can be measured is the overhead alone. Work that grows with
the devices (weak: one patch or window each) should take n times as long on n of them,
and fixed work (strong: eight patches or windows in all) as long as on one. Every number
of devices runs in a process of its own. Times exclude compilation and are the fastest
of ten calls.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PATCH = (32, 32, 16)
TOTAL = 8  # patches and windows of fixed work
CALLS, SAMPLES = 10, 4
KINDS = {"train": "training step", "sample": f"{SAMPLES} samples of windows"}


@functools.cache
def network(features: int):
    """A network of two levels, its state on all devices."""
    from configs import base
    from unc_jax.segmentation import devices
    from unc_jax.segmentation.models import build_model
    from unc_jax.segmentation.train import create_state

    config = base.get_config()
    config.model.features, config.model.depth = features, 2
    config.train.patch_shape = PATCH
    model = build_model(config)
    return config, model, devices.replicate(create_state(config, model))


def fastest_seconds(call: Callable[[], None]) -> float:
    call()  # compiles
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def train(features: int, batch: int) -> float:
    """Seconds of an update on `batch` patches."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from unc_jax.segmentation import devices
    from unc_jax.segmentation.feed import repeat
    from unc_jax.segmentation.train import build_train_step

    config, model, first = network(features)
    state = jax.tree.map(jnp.copy, first)  # a step takes its state away
    images = np.random.default_rng(0).normal(size=(batch, *PATCH)).astype(np.float16)
    data = devices.replicate((images, (images > 1).astype(np.uint8)))
    step = repeat(build_train_step(config, model), lambda state, data, i: data, 1)

    def call() -> None:
        nonlocal state
        state, losses = step(state, data)
        jax.block_until_ready(losses)

    return fastest_seconds(call)


def sample(features: int, windows: int) -> float:
    """Seconds of SAMPLES samples of a volume of `windows` windows in one batch."""
    import jax
    import numpy as np

    from unc_jax.segmentation.train import variables_of
    from unc_jax.uncertainty.sampling import build_monte_carlo

    _, model, state = network(features)
    monte_carlo = build_monte_carlo(
        model,
        samples=SAMPLES,
        patch_shape=PATCH,
        overlap=0.0,
        mask_scope="volume",
        window_batch=windows,
        chunk=1,
    )
    shape = (PATCH[0] * windows, *PATCH[1:])
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    variables, key = variables_of(state), jax.random.key(0)
    return fastest_seconds(lambda: monte_carlo(variables, volume, key) and None)


def measure(devices: int, features: int) -> dict[str, float]:
    """All times on this process's devices, by "kind weak" and "kind strong"."""
    import jax

    if jax.device_count() != devices:
        raise SystemExit(f"{jax.device_count()} devices, not {devices}")
    return {
        f"{kind} {scaling}": function(features, items)
        for kind, function in {"train": train, "sample": sample}.items()
        for scaling, items in {"weak": devices, "strong": TOTAL}.items()
    }


def in_process(devices: int, features: int) -> dict[str, float]:
    """`measure` in a process that has so many devices."""
    command = [sys.executable, __file__, "--measure", str(devices)]
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [*command, "--features", str(features)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(found: dict[int, dict[str, float]], features: int) -> str:
    """Markdown; overheads are times over what they would be if sharing cost nothing."""
    counts = list(found)
    first = found[counts[0]]
    size = "x".join(map(str, PATCH))
    lines = [
        "# Sharing work over simulated devices",
        "",
        f"    python benchmarks/scaling.py --devices {','.join(map(str, counts))} "
        f"--features {features}",
        "",
        f"The devices are simulated and share {os.cpu_count()} CPU cores, so **this "
        "is no speed-up**: it shows what dividing the work costs on top of doing it. "
        f"Weak: one {size} patch or window for each device, which on shared cores "
        "should take n times as long on n devices. Strong: "
        f"{TOTAL} patches or windows in all, which should take as long on any number. "
        "The factor is the time over that ideal: 1 is free, below 1 means that one "
        f"device alone left cores idle. On {TOTAL} devices weak and strong are the "
        "same work, timed twice: their difference is the noise. Load of the machine, "
        f"one minute's mean: {os.getloadavg()[0]:.1f}, this program's own share "
        "included.",
    ]
    for kind, name in KINDS.items():
        lines += ["", f"## {name.capitalize()}", ""]
        lines += ["| devices | weak, s | factor | strong, s | factor |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for count, times in found.items():
            weak, strong = times[f"{kind} weak"], times[f"{kind} strong"]
            ideal = first[f"{kind} weak"] * count / counts[0]
            lines.append(
                f"| {count} | {weak:.3f} | {weak / ideal:.2f} | {strong:.3f} "
                f"| {strong / first[f'{kind} strong']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="1,2,4,8", help="counts that divide 8")
    parser.add_argument("--features", type=int, default=2, help="of the first level")
    parser.add_argument("--output", type=Path, help="Markdown; default: print it")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.features)))
        return
    counts = [int(count) for count in arguments.devices.split(",")]
    if any(count < 1 or TOTAL % count for count in counts):
        parser.error(f"--devices {arguments.devices}: each must divide {TOTAL}")
    found = {}
    for count in counts:
        found[count] = in_process(count, arguments.features)
        print(f"{count} devices: {found[count]}", file=sys.stderr)
    text = report(found, arguments.features)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
