"""The tasks of `benchmarks.gpu` that this package does, served to its parts."""

from typing import Any

from benchmarks.gpu import bits, correct, kernels, study
from benchmarks.peers import ours
from benchmarks.peers.contender import Task, serve
from configs import base
from unc_jax.compilation import returning_memory
from unc_jax.config import Config
from unc_jax.study.predictor import window_shape


def case_by_default(features: int, depth: int, size, **fields: Any):
    """Runs `ours.case` by the windows that a run takes by itself."""
    config: Config = base.get_config()
    config.model.features, config.model.depth = features, depth
    windows = window_shape(config, size)
    run = ours.case(
        features,
        windows,
        size,
        config.evaluate.overlap,
        config.evaluate.window_batch,
        depth=depth,
        **fields,
    )
    return lambda: {**run(), "windows": windows}


TASKS: dict[str, Task] = {
    **ours.TASKS,
    "layer": correct.layer,
    "network": correct.network,
    "case_by_default": case_by_default,
    "steps": bits.steps,
    **study.TASKS,
}
TASKS["profiled"] = lambda of, arguments: kernels.profiled(TASKS[of], arguments)


if __name__ == "__main__":
    with returning_memory():  # as the entry points do
        serve(TASKS, ours.device())
