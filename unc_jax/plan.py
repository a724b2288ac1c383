"""Estimates of the memory, disk and time that a run needs, before it is started.

Memory comes from XLA's analysis of the programs, compiled for the shapes of the config;
time is measured in a short run on zeros. Of the data set only the list of cases is
read, of the run its summary.json.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unc_jax.config import Config
from unc_jax.data import dataset, files, patches, split
from unc_jax.data.write_cohort import bytes_needed
from unc_jax.errors import InputError, counted
from unc_jax.footprint import footprint
from unc_jax.segmentation import devices
from unc_jax.segmentation.feed import RESIDENT_SHARE
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.progress import duration
from unc_jax.segmentation.sliding import windows_per_call
from unc_jax.segmentation.train import build_train_step, state_shapes, variables_of
from unc_jax.study import split_half
from unc_jax.study.predictor import chunk_of, window_shape
from unc_jax.uncertainty.ensembles import FLIPS
from unc_jax.uncertainty.sampling import sample_windows

_PAPERS_CASES = 131
_PAPERS_TUMOUR_SHAPE = (284, 256, 133)
_STORED_BYTES = 3  # per prepared voxel: float16 image and uint8 label
_CHECKPOINTS = 3.5  # two latest, the best, and room for the next
# Float32 volumes besides the samples: the image, the count of its windows, five sums,
# and two sums of a half of the samples.
_VOLUMES = 9
# Numbers of results/demo, and of benchmarks/mask_luck.py in docs/statistics.md.
_UNKNOWN = (
    "whether N samples are enough is known after evaluation; with N = 10 and the same "
    "masks for all cases the demo's measures have reliabilities of 0.89 (CV), 0.89 "
    "(D_pw) and 0.97 (U_labelled); with separate masks for each case an earlier demo's "
    "had 0.25, 0.38 and 0.60"
)


class Work(NamedTuple):
    """Amount of work, from the config and the list of cases."""

    cases: int
    known: str  # source of the number of cases
    train_cases: int
    volume: tuple[int, ...]  # voxels (x, y, z)
    window: tuple[int, ...]  # voxels (x, y, z)
    windows: int  # per volume

    @property
    def voxels(self) -> int:
        return int(np.prod(self.volume))


def plan(config: Config, workdir: Path) -> Iterator[str]:
    """Yields lines on the resources that the run needs and those available.

    Raises InputError, naming the field to change, when they do not suffice.
    """
    work = work_of(config)
    yield f"cases:    {work.cases} ({work.known}), {work.train_cases} of them to train"
    there = devices.memory_bytes()
    kind = jax.local_devices()[0].device_kind
    which = "available, shared" if jax.default_backend() == "cpu" else "each"
    yield f"devices:  {jax.device_count()} x {kind}, {_gb(there)} {which}"
    yield from _disk(config, work, workdir)
    if not config.evaluate.members:  # else its members are trained, one by one
        yield from _training(config, work, there)
    yield from _sampling(config, work, there)
    yield from _reliability(workdir)


def work_of(config: Config) -> Work:
    """Returns the work of a run; without the data set, that of the paper's set."""
    data = config.data
    ids, known = [], f"assumed: no data at {data.root}"
    if data.root == "phantom":
        ids = [f"liver_{index}" for index in range(data.phantom_cases)]
        known = "synthetic"
    elif (root := files.expanded(data.root)).is_dir():
        task = dataset.read_task(root)
        ids, known = [case.id for case in task.training], str(data.root)
    chosen = split.choose_split(
        ids or [f"case_{index}" for index in range(_PAPERS_CASES)],
        data.split_file if ids else "",  # it names cases of the data set
        seed=data.split_seed,
        shares=data.split_shares,
        fold=data.fold,
        folds=data.folds,
    )
    volume = _PAPERS_TUMOUR_SHAPE if data.shape == "auto" else tuple(data.shape)
    window = window_shape(config, volume)
    padded = patches.padded_shape(volume, window)
    windows = len(patches.window_corners(padded, window, config.evaluate.overlap))
    return Work(
        len(ids) or _PAPERS_CASES, known, len(chosen.train), volume, window, windows
    )


def _disk(config: Config, work: Work, workdir: Path) -> Iterator[str]:
    """Yields the disk space needed in both folders; on the same disk it adds up."""
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(_state(config)))
    preparing = bytes_needed(work.volume, work.cases, work.cases)
    yield (
        f"disk:     {_gb(work.cases * work.voxels * _STORED_BYTES)} for the prepared "
        f"cohort ({_gb(preparing)} while it is prepared), "
        f"{_gb(state * _CHECKPOINTS)} for checkpoints"
    )
    needs = (
        (files.expanded(config.data.prepared), preparing, "data.prepared"),
        (workdir, int(state * _CHECKPOINTS), "--workdir"),
    )
    taken: dict[int, int] = {}
    for folder, needed, name in needs:
        path = folder.resolve()
        there = next(place for place in (path, *path.parents) if place.exists())
        disk = there.stat().st_dev
        taken[disk] = taken.get(disk, 0) + needed
        free = shutil.disk_usage(there).free
        yield f"          {_gb(free)} free at {folder}"
        if free < taken[disk]:
            raise InputError(
                f"{folder}: {_gb(free)} free, {_gb(taken[disk])} needed; free some, "
                f"or name another folder by {name}"
            )


def _training(config: Config, work: Work, there: int) -> Iterator[str]:
    train = config.train
    devices.check_batch(train.batch)
    batch = train.batch // jax.device_count()
    shape = (batch, *train.patch_shape)
    yield f"training: compiling a step of {batch} patches {_by(shape[1:])} a device"
    images, labels = (
        jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float16, jnp.uint8)
    )
    step = build_train_step(config, build_model(config))
    found = footprint(step, (_state(config), (images, labels)), donate=(0,))
    resident = work.train_cases * work.voxels * _STORED_BYTES
    residence = train.residence
    if residence == "auto":
        residence = "device" if resident <= RESIDENT_SHARE * there else "host"
    total = found.memory + (resident if residence == "device" else 0)
    yield (
        f"          {_gb(found.memory)} for the step, {_gb(resident)} for the training "
        f"set, residence {residence}: {_gb(total)} of {_gb(there)}"
    )
    if total > there:
        field = "lower train.batch"
        if found.memory <= there:
            field = "set train.residence=host"
        raise InputError(f"training needs {_gb(total)} of {_gb(there)}: {field}")
    seconds = found.seconds()
    yield (
        f"          about {duration(seconds * train.steps)} for {train.steps} steps "
        f"of {seconds:.2g} s, after {found.compile_s:.0f} s to compile"
    )


def _sampling(config: Config, work: Work, there: int) -> Iterator[str]:
    evaluation = config.evaluate
    passes = _passes(config)
    by_dropout = evaluation.source == "dropout"
    chunk = chunk_of(config, work.window) if by_dropout else 1
    at_once = windows_per_call(work.windows, evaluation.window_batch)
    calls, batch = -(-work.windows // at_once), at_once // jax.local_device_count()
    each = f"{counted(work.windows, 'window')} of {_by(work.window)} a case"
    yield f"samples:  {each}, {batch} at a time on a device"
    while True:
        found = footprint(*_monte_carlo(config, (batch, *work.window), chunk))
        volumes = (chunk + _VOLUMES) * work.voxels * 4
        total = found.memory + volumes
        yield (
            f"          {chunk} of {passes} samples at a time: "
            f"{_gb(found.memory)} for windows, {_gb(volumes)} for volumes: "
            f"{_gb(total)} of {_gb(there)}"
        )
        if total <= there:
            break
        if chunk == 1:
            field = "data.shape" if volumes > there else "evaluate.window_batch"
            raise InputError(
                f"sampling needs {_gb(total)} of {_gb(there)}: lower {field}"
            )
        chunk //= 2
    networks = max(len(evaluation.members), 1) if by_dropout else 1
    a_case = found.seconds() * calls * -(-passes // chunk) * networks
    yield (
        f"          about {duration(a_case)} a case, {duration(a_case * work.cases)} "
        f"for all, after {found.compile_s:.0f} s to compile"
    )
    if jax.default_backend() != "cpu":  # on a CPU thin windows need less memory
        yield from _whole_volume(config, work, there)


def _passes(config: Config) -> int:
    """Returns the passes per window: of each network under dropout, else of all."""
    source = config.evaluate.source
    if source == "dropout":
        return config.evaluate.samples
    return len(FLIPS) if source == "flips" else len(config.evaluate.members)


def _whole_volume(config: Config, work: Work, there: int) -> Iterator[str]:
    """Yields the memory and savings of one window as large as the volume, if possible.

    The window is not chosen automatically: other windows give other samples, which must
    not depend on the machine.
    """
    factor = 2 ** (config.model.depth - 1)
    if work.windows == 1 or any(side % factor for side in work.volume):
        return
    found = footprint(*_monte_carlo(config, (1, *work.volume), 1))
    total = found.memory + (1 + _VOLUMES) * work.voxels * 4
    less = work.windows * math.prod(work.window) / work.voxels
    field = f'"--config.evaluate.window_shape={tuple(work.volume)}"'
    yield (
        f"          one window of {_by(work.volume)} is {less:.2f} times less work and "
        f"needs {_gb(total)} of {_gb(there)}"
        + (f": {field}" if total <= there else ", too much")
    )


def _reliability(workdir: Path) -> Iterator[str]:
    """Yields the reliability of the measures at the run's number of samples."""
    try:
        measures = files.read_json(workdir / "summary.json")["test"]["measures"]
    except (OSError, ValueError, LookupError):
        yield f"measures: {_UNKNOWN}"
        return
    first, *others = split_half.sentences(measures)
    yield f"measures: {first}"
    yield from (f"          {one}" for one in others)


def _state(config: Config) -> Any:
    return state_shapes(config, build_model(config))


def _monte_carlo(config: Config, shape: tuple[int, ...], chunk: int):
    """Returns the function that samples a batch of windows, and its argument shapes."""
    settings = {"mask_scope": config.evaluate.mask_scope, "chunk": chunk}

    def run(*arrays):
        return sample_windows(build_model(config), *arrays, **settings)

    variables = jax.eval_shape(variables_of, _state(config))
    windows = jax.ShapeDtypeStruct((*shape, 1), jnp.float32)
    places = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), chunk))
    return run, (variables, windows, places, keys)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
