"""Purity of the array functions: same input, same bits, and nothing else touched.

The functions are found in the modules. A public function without an example in EXAMPLES
fails, so that a new one cannot stay untested.
"""

import builtins
import importlib
import inspect
import os
import random
import sys
import time
import typing
from collections.abc import Callable

import jax
import numpy as np
import pytest

from unc_jax.study import metrics
from unc_jax.study.statistics import Estimate
from unc_jax.uncertainty.prediction import Prediction

MODULES = (
    "segmentation.losses",
    "data.preprocess",
    "data.resampling",
    "data.patches",
    "uncertainty.measures",
    "uncertainty.packed_masks",
    "uncertainty.host_samples",
    "uncertainty.prediction",
    "uncertainty.subsets",
    "study.metrics",
    "study.distances",
    "study.components",
    "study.statistics",
    "study.selective",
)

# Functions that change an argument by contract, and say so.
IN_PLACE = {"data.resampling.resample_into"}


class Call(typing.NamedTuple):
    """Arguments of one example call."""

    args: tuple
    kwargs: dict


def call(*args, **kwargs) -> Call:
    return Call(args, kwargs)


_random = np.random.default_rng(7)
_SHAPE = (6, 5, 4)
_WCC = ((0.1, 3.0), (3.0, 1.0))
_PROBABILITIES = _random.random((2, *_SHAPE), np.float32)
_LOGITS = _random.normal(size=(2, *_SHAPE)).astype(np.float32)
_LABELS = (_random.random((2, *_SHAPE)) < 0.3).astype(np.uint8)
_SCAN = _random.normal(0, 200, _SHAPE).astype(np.float32)
_LABEL_MAP = _random.integers(0, 3, _SHAPE).astype(np.uint8)
_MASK = _LABEL_MAP > 0
_OTHER = _random.random(_SHAPE) < 0.5
_BOX = (slice(1, 5), slice(0, 4), slice(1, 3))
_AFFINE = np.diag([0.7, 0.7, 2.5, 1.0])
_SAMPLES = _random.random((4, *_SHAPE), np.float32)
_MEAN = _SAMPLES.mean(axis=0)
_VOLUMES = np.array([120, 90, 101, 99], np.int32)
_PACKED = np.packbits(_SAMPLES >= 0.5, axis=-1)
_HALVES = np.array([[0, 1], [3, 1], [2, 3]])
_CORNERS = np.array([[0, 0, 0], [3, 1, 2]], np.int32)
_PATCHES = _random.random((2, 3, 4, 2), np.float32)
_COORDINATES = _random.integers(0, 4, (3, 5, 3)).astype(np.int16)
_COUNTS = np.array([5, 2, 0], np.int32)
_DICE = np.array([0.9, 0.8, np.nan, 0.7, 0.95, 0.6, 0.85])
_MEASURE = np.array([0.1, 0.2, 0.3, 0.5, 0.1, 0.4, np.nan])
_CASES = [f"case_{i}" for i in range(7)]
_DRAWN = _random.integers(0, 7, (50, 7))
_DRAWN_RUNS = _random.integers(0, 2, (50, 2))
_ESTIMATE = Estimate(0.5, _random.normal(0.5, 0.1, 50))
_VOLUME_ML = np.array([1400.0, 1100.0, 900.0, 1500.0, 1300.0, 800.0, 1000.0])
_SUMS = metrics.sum_voxels(_MEAN, _MASK, bins=3)
_PREDICTION = Prediction(
    mean=_MEAN,
    uncertainty=_MEAN,
    masks=_PACKED,
    volumes=_VOLUMES,
    sparse=_SAMPLES[:, ::2, ::2, ::2],
    labelled={"uncertainty": 0.1, "expected_entropy": 0.2}
    | {"predictive_entropy": 0.3, "mutual_information": 0.1},
    hard=False,
    identical=False,
)

EXAMPLES: dict[str, Call] = {
    "segmentation.losses.soft_dice_loss": call(_PROBABILITIES, _LABELS, smooth=1.0),
    "segmentation.losses.weighted_categorical_crossentropy": call(
        _PROBABILITIES, _LABELS, weights=_WCC
    ),
    "segmentation.losses.soft_dice_from_logits": call(_LOGITS, _LABELS),
    "segmentation.losses.weighted_crossentropy_from_logits": call(
        _LOGITS, _LABELS, weights=_WCC
    ),
    "data.preprocess.window": call(_SCAN, -120.0, 240.0),
    "data.preprocess.zscore": call(_SCAN, 12.0, 34.0),
    "data.preprocess.select": call(_LABEL_MAP, (1, 2)),
    "data.preprocess.bounding_box": call(_MASK),
    "data.preprocess.box_of": call([[1, 5], [0, 4], [1, 3]]),
    "data.preprocess.prepare_liver": call(_SCAN, _LABEL_MAP, shape=(8, 6, 5)),
    "data.preprocess.prepare_tumor": call(_SCAN, _LABEL_MAP, shape=(8, 6, 5)),
    "data.preprocess.prepare": call(
        _SCAN,
        _LABEL_MAP,
        "tumor",
        shape=(8, 6, 5),
        window_hu=(-30.0, 200.0),
        outside_hu=-50.0,
        liver_labels=(1, 2),
        tumor_labels=(2,),
    ),
    "data.preprocess.moments": call(_SCAN),
    "data.resampling.resample": call(_SCAN, (8, 3, 9), 1),
    "data.resampling.resample_into": call(
        np.empty((8, 3, 9), np.float32), _SCAN, order=1
    ),
    "data.resampling.restore": call(_MEAN[:4, :4, :2], (9, 8, 7), _BOX, 1, 0.0),
    "data.resampling.cropped_affine": call(_AFFINE, _BOX),
    "data.resampling.resampled_affine": call(_AFFINE, _SHAPE, (8, 8, 8)),
    "data.patches.window_corners": call((9, 8, 7), (4, 4, 3), 0.25),
    "data.patches.padded_shape": call(_SHAPE, (3, 8, 2)),
    "data.patches.pad_to": call(_SCAN, (3, 8, 2)),
    "data.patches.extract": call(_SCAN, _CORNERS, (3, 4, 2)),
    "data.patches.stitch": call(_PATCHES, _CORNERS, _SHAPE),
    "data.patches.add_patch": call(_SCAN, _PATCHES[0], _CORNERS[1]),
    "data.patches.coverage": call(_CORNERS, (3, 4, 2), _SHAPE),
    "data.patches.draw_corners": call(
        jax.random.key(3),
        np.int32(11),
        _COORDINATES,
        _COUNTS,
        batch=4,
        patch_shape=(3, 4, 2),
        volume_shape=_SHAPE,
        foreground_fraction=0.5,
    ),
    "uncertainty.measures.voxelwise_uncertainty": call(_SAMPLES),
    "uncertainty.measures.coefficient_of_variation": call(_SAMPLES),
    "uncertainty.measures.coefficient_of_variation_roy": call(_SAMPLES),
    "uncertainty.measures.mean_pairwise_dice": call(_SAMPLES),
    "uncertainty.measures.mean_labelled_uncertainty": call(_SAMPLES),
    "uncertainty.measures.expected_entropy": call(_SAMPLES),
    "uncertainty.measures.predictive_entropy": call(_SAMPLES),
    "uncertainty.measures.mutual_information": call(_SAMPLES),
    "uncertainty.prediction.entropy_term": call(_MEAN),
    "uncertainty.prediction.binary_entropy": call(_MEAN),
    "uncertainty.prediction.term_and_entropy": call(_MEAN),
    "uncertainty.measures.mean_probability": call(_SAMPLES),
    "uncertainty.measures.sample_volumes": call(_SAMPLES),
    "uncertainty.measures.cv_of_volumes": call(_VOLUMES),
    "uncertainty.measures.cv_roy_of_volumes": call(_VOLUMES),
    "uncertainty.measures.measure_all": call(_PREDICTION),
    "uncertainty.measures.standard_error": call(_PREDICTION, "u_labelled"),
    "uncertainty.subsets.cv": call(_PREDICTION, _HALVES),
    "uncertainty.subsets.mean_pairwise_dice": call(_PREDICTION, _HALVES),
    "uncertainty.subsets.labelled_uncertainty": call(_PREDICTION, _HALVES),
    "uncertainty.prediction.reduce_samples": call([_SAMPLES[:3], _SAMPLES[3:]]),
    "uncertainty.host_samples.reduce_maps": call([_MASK, _MEAN, _MEAN]),
    "uncertainty.packed_masks.bits_at": call(_PACKED, np.zeros((2, 3), int)),
    "uncertainty.packed_masks.dice_table": call(_PACKED),
    "uncertainty.packed_masks.pack_masks": call(_SAMPLES >= 0.5),
    "uncertainty.packed_masks.shared_voxels": call(_PACKED),
    "uncertainty.packed_masks.pairwise_dice_packed": call(_PACKED),
    "study.metrics.dice": call(_MASK, _OTHER),
    "study.distances.surface_distances": call(
        _MASK, _OTHER, (1.0, 2.0, 3.0), tolerance_mm=2.0
    ),
    "study.components.find_components": call(_PREDICTION, _AFFINE, _OTHER, most=9),
    "study.components.compare_lesions": call(_MASK, _OTHER),
    "study.components.outside_largest": call(_MASK),
    "study.components.label": call(np.argwhere(_MASK)),
    "study.components.diameter_mm": call(np.argwhere(_MASK), np.array([1.0, 2.0, 3.0])),
    "study.distances.boundary": call(_MASK),
    "study.distances.near_boundary": call(_MASK),
    "study.distances.places_of": call(_MASK),
    "study.metrics.volume_ml": call(_MASK, 0.0015),
    "study.metrics.votes": call(_SAMPLES >= 0.5),
    "study.metrics.disagreement": call(_SAMPLES >= 0.5),
    "study.metrics.cross_correlation": call(_MEAN, _SCAN, within=_MASK),
    "study.metrics.generalised_energy_distance": call(
        _PACKED, np.packbits(_SAMPLES[:2] >= 0.4, axis=-1)
    ),
    "study.metrics.sum_voxels": call(_MEAN, _MASK),
    "study.metrics.add_sums": call([_SUMS, _SUMS]),
    "study.metrics.calibration": call(_SUMS),
    "study.metrics.reliability": call(_SUMS),
    "study.statistics.spearman": call(_MEASURE, _DICE),
    "study.statistics.partial_spearman": call(_MEASURE, _DICE, _VOLUME_ML),
    "study.statistics.spearman_within": call(_MEASURE, _DICE, low=0.65),
    "study.statistics.resampled_cases": call(_CASES, resamples=50, seed=1),
    "study.statistics.resampled_runs": call("wcc", 3, resamples=50, seed=1),
    "study.statistics.estimate_spearman": call(_MEASURE, _DICE, _DRAWN),
    "study.statistics.estimate_mean": call(_DICE, _DRAWN),
    "study.statistics.mean_over_runs": call([_ESTIMATE, _ESTIMATE], _DRAWN_RUNS),
    "study.statistics.mean_difference": call([(_ESTIMATE, _ESTIMATE)]),
    "study.statistics.finding": call(_ESTIMATE),
    "study.statistics.correlate": call(_MEASURE, _DICE, _DRAWN),
    "study.statistics.mean": call(_DICE),
    "study.statistics.spread": call([0.5, 0.25, 0.75], n=[7, 6, 7]),
    "study.statistics.complete": call(_MEASURE, _DICE),
    "study.selective.risk_coverage": call(1 - _DICE, -_MEASURE),
    "study.selective.areas": call(1 - _DICE, -_MEASURE),
    "study.selective.failure_auroc": call(_DICE, -_MEASURE, threshold=0.82),
    "study.selective.referral": call(_DICE, -_MEASURE),
    "study.selective.referral_gain": call(_DICE, -_MEASURE),
}


def _public_functions() -> dict[str, Callable]:
    found = {}
    for module_name in MODULES:
        module = importlib.import_module(f"unc_jax.{module_name}")
        for name, value in vars(module).items():
            # Functions under jax.jit are objects of another type, with the same module.
            own = getattr(value, "__module__", None) == module.__name__
            if own and not name.startswith("_") and inspect.isroutine(value):
                found[f"{module_name}.{name}"] = value
    return found


def _returning_jax_arrays() -> list[str]:
    found = []
    for name, function in sorted(FUNCTIONS.items()):
        returned = typing.get_type_hints(function).get("return")
        if jax.Array in (returned, *typing.get_args(returned)):
            found.append(name)
    return found


FUNCTIONS = _public_functions()


@pytest.fixture(params=sorted(FUNCTIONS))
def example(request) -> tuple[Callable, Call]:
    if request.param not in EXAMPLES:
        pytest.fail(f"no example call of {request.param} in EXAMPLES")
    given = EXAMPLES[request.param]
    fresh = jax.tree.map(
        lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, given
    )
    for position, leaf in enumerate(jax.tree.leaves(fresh)):
        in_place = request.param in IN_PLACE and position == 0
        if isinstance(leaf, np.ndarray) and not in_place:
            leaf.flags.writeable = False
    return FUNCTIONS[request.param], fresh


def test_every_module_has_functions_and_every_example_its_function():
    assert {name.rpartition(".")[0] for name in FUNCTIONS} == set(MODULES)
    assert set(EXAMPLES) <= set(FUNCTIONS)


def test_same_bits_twice(example):
    function, given = example
    first = _bits(function(*given.args, **given.kwargs))
    assert _bits(function(*given.args, **given.kwargs)) == first


def test_arguments_stay_as_they_are(example):
    function, given = example
    if _name(function) in IN_PLACE:
        given = Call(given.args[1:], given.kwargs)
        target = np.empty((8, 3, 9), np.float32)
        before = _bits(given)
        function(target, *given.args, **given.kwargs)
    else:
        before = _bits(given)
        function(*given.args, **given.kwargs)
    assert _bits(given) == before


def test_no_global_generator(example):
    function, given = example
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        before = (random.getstate(), _bits(np.random.get_state()))
        results.append(_bits(function(*given.args, **given.kwargs)))
        assert (random.getstate(), _bits(np.random.get_state())) == before
    assert results[0] == results[1]


def test_no_environment_no_file_no_clock(example, monkeypatch):
    function, given = example
    expected = _bits(function(*given.args, **given.kwargs))
    with monkeypatch.context() as patched:
        for module, name in _OUTSIDE:
            watched = _ForLibrariesOnly(getattr(module, name))
            patched.setattr(module, name, watched)
        found = function(*given.args, **given.kwargs)
    assert _bits(found) == expected


def test_reaching_outside_is_seen(monkeypatch):
    namespace = {"__name__": "unc_jax.study.metrics", "getenv": os.getenv}
    exec("def reader():\n    return getenv('HOME')", namespace)
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", _ForLibrariesOnly(os.environ))
        with pytest.raises(AssertionError, match="outside its arguments"):
            namespace["reader"]()
        os.getenv("HOME")  # of anyone else


@pytest.mark.parametrize("example", _returning_jax_arrays(), indirect=True)
def test_same_under_jit(example):
    function, given = example
    leaves, structure = jax.tree.flatten(given)
    traced = [isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves]

    def of_arrays(*arrays):
        source = iter(arrays)
        mixed = [
            next(source) if is_array else leaf
            for leaf, is_array in zip(leaves, traced, strict=True)
        ]
        whole = jax.tree.unflatten(structure, mixed)
        return function(*whole.args, **whole.kwargs)

    arrays = [leaf for leaf, is_array in zip(leaves, traced, strict=True) if is_array]
    plain, jitted = of_arrays(*arrays), jax.jit(of_arrays)(*arrays)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(jitted), strict=True):
        assert one.dtype == other.dtype
        # Fused sums may round otherwise.
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)


_OUTSIDE = ((os, "environ"), (builtins, "open"), (time, "time"), (time, "monotonic"))


class _ForLibrariesOnly:
    """A stand-in that fails under code of the package, and works under a library's."""

    def __init__(self, real):
        self._real = real

    def _passed(self):
        frame = sys._getframe(2)
        while frame.f_globals["__name__"] == "os":  # os.getenv reads os.environ
            frame = frame.f_back
        caller = frame.f_globals["__name__"]
        assert not caller.startswith("unc_jax"), (
            f"{caller} reached outside its arguments"
        )
        return self._real

    def __getattr__(self, name):
        return getattr(self._passed(), name)

    def __getitem__(self, name):
        return self._passed()[name]

    def __contains__(self, name):
        return name in self._passed()

    def __iter__(self):
        return iter(self._passed())

    def __len__(self):
        return len(self._passed())

    def __call__(self, *args, **kwargs):
        return self._passed()(*args, **kwargs)


def _name(function: Callable) -> str:
    return f"{function.__module__.removeprefix('unc_jax.')}.{function.__name__}"


def _bits(value):
    """Returns a nested tuple that is equal only for equal types, shapes and bits."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(
        value.dtype, jax.dtypes.prng_key
    ):
        value = jax.random.key_data(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return type(value).__name__, array.dtype.str, array.shape, array.tobytes()
    if isinstance(value, float):
        return "float", np.float64(value).tobytes()
    if isinstance(value, slice):
        return "slice", value.start, value.stop, value.step
    if isinstance(value, dict):
        return "dict", tuple((name, _bits(item)) for name, item in value.items())
    if isinstance(value, tuple | list):
        return type(value).__name__, tuple(_bits(item) for item in value)
    assert value is None or isinstance(value, bool | int | str), type(value)
    return type(value).__name__, value
