"""What a GPU is for: the network of the paper at full width, in bfloat16."""

import math

from benchmarks.peers.matches import LAYERS, PATCH, by, layer_gflop, network_gflop
from benchmarks.peers.table import Row, row_of
from benchmarks.peers.turns import Setting, take_turns

_LAYOUTS = ("bfloat16", "channels_last bfloat16")
_COMPILED = "compile loop channels_last bfloat16"


def gpu(
    setting: Setting,
    *,
    features: int = 32,
    layers=LAYERS,
    batch: int = 16,
    size=(256, 256, 256),
    plane=(256, 256, 16),
) -> list[Row]:
    """Layers over a batch of patches, an update, ten samples of a whole case."""
    return [
        *_layers(setting, layers, batch),
        _training(setting, features, batch // 2),
        *_cases(setting, features, size, plane),
    ]


def _layers(setting: Setting, layers, batch: int) -> list[Row]:
    rows = []
    for gradients in (False, True):
        for shape, channels, low in layers:
            fields = {"shape": shape, "channels": channels, "low": low}
            fields |= {"gradients": gradients, "batch": batch}
            ours = {"form": "ours", "dtype": "bfloat16", **fields}
            peer = {form: {"form": form, **fields} for form in _LAYOUTS}
            times = take_turns(setting, "conv", ours={"ours": ours}, peer=peer)
            work = batch * layer_gflop(shape, channels) * (3 if gradients else 1)
            what = f"{batch} of {by(shape)} {channels[0]}->{channels[1]}"
            what += ", forward and gradients" if gradients else ", forward"
            rows.append(row_of(what, times, work))
    return rows


def _training(setting: Setting, features: int, batch: int) -> Row:
    fields = {"features": features, "patch": PATCH, "batch": batch}
    forms = (_LAYOUTS[1], f"compile {_LAYOUTS[1]}")
    peer = {form: {"form": form, **fields} for form in forms}
    ours = {"ours": {**fields, "dtype": "bfloat16"}}
    times = take_turns(setting, "train", ours=ours, peer=peer)
    work = 3 * network_gflop(features, batch * math.prod(PATCH))
    what = f"training step, {features} features, {batch} of {by(PATCH)}"
    return row_of(what, times, work)


def _cases(setting: Setting, features: int, size, plane) -> list[Row]:
    """By equal windows, and by each one's own; in float32 too, for the measures."""
    setting.once("ours", "weights", features=features, path=setting.weights)
    fields = {"features": features, "size": size, "overlap": 0.25, "count": 10}
    fields |= {"rate": 0.1}
    loop = {**fields, "patch": PATCH, "windows": 4, "path": setting.weights}
    peer = {_COMPILED: {**loop, "form": _COMPILED}}
    rows = []
    for patch, windows in ((PATCH, 4), (plane, 1)):
        own = {**fields, "kind": "spatial", "patch": patch, "windows": windows}
        ours = {
            "ours": {**own, "dtype": "bfloat16"},
            "ours float32": {**own, "dtype": "float32"},
        }
        times = take_turns(setting, "case", ours=ours, peer=peer)
        what = f"10 samples of {by(size)}, ours by windows {by(patch)}, rate 0.1"
        rows.append(row_of(what, times))
    return rows
