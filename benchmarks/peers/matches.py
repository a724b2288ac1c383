"""What is compared: functions of a Setting that return rows of the table."""

import math

from benchmarks.peers.table import Row, row_of
from benchmarks.peers.turns import Setting, take_turns
from unc_jax.data.patches import window_corners

# Layers of the default network over a 128x128x16 patch: volume, channels in and out,
# and how many of those in are upsampled from half the size, the rest being a skip.
LAYERS = (
    ((128, 128, 16), (1, 32), 0),
    ((128, 128, 16), (32, 64), 0),
    ((64, 64, 8), (64, 64), 0),
    ((64, 64, 8), (64, 128), 0),
    ((32, 32, 4), (128, 128), 0),
    ((32, 32, 4), (128, 256), 0),
    ((16, 16, 2), (256, 256), 0),
    ((16, 16, 2), (256, 512), 0),
    ((32, 32, 4), (768, 256), 512),
    ((32, 32, 4), (256, 128), 0),
    ((64, 64, 8), (256, 128), 128),
    ((64, 64, 8), (128, 64), 0),
    ((128, 128, 16), (128, 64), 64),
    ((128, 128, 16), (64, 32), 0),
)
TRAININGS = ((32, (128, 128, 16), 1), (16, (128, 128, 16), 2), (16, (64, 64, 16), 8))
SAMPLES = ((0.1, "spatial"), (0.5, "spatial"))
PATCH = (128, 128, 16)
LAYOUTS = ("contiguous", "channels_last")


def conv3d(setting: Setting) -> list[Row]:
    rows = []
    for gradients in (False, True):
        total: dict[str, float] = {}
        for shape, channels, low in LAYERS:
            fields = {"shape": shape, "channels": channels, "low": low}
            fields["gradients"] = gradients
            times = take_turns(
                setting,
                "conv",
                ours={form: {"form": form, **fields} for form in ("ours", "xla")},
                peer={form: {"form": form, **fields} for form in LAYOUTS},
            )
            work = layer_gflop(shape, channels) * (3 if gradients else 1)
            what = f"{by(shape)} {channels[0]}->{channels[1]}"
            what += f", {low} of them upsampled" if low else ""
            kind = "forward and gradients" if gradients else "forward"
            rows.append(row_of(f"{what}, {kind}", times, work=work))
            for form, reply in times.items():
                total[form] = total.get(form, 0) + reply["seconds"]
        sums = {form: {"seconds": seconds} for form, seconds in total.items()}
        rows.append(row_of(f"all layers, {kind}", sums))
    return rows


def training(setting: Setting) -> list[Row]:
    rows = []
    for features, patch, batch in TRAININGS:
        fields = {"features": features, "patch": patch, "batch": batch}
        peer = {form: {"form": form, **fields} for form in LAYOUTS}
        times = take_turns(setting, "train", ours={"ours": fields}, peer=peer)
        what = f"training step, {features} features, {batch} of {by(patch)}"
        work = 3 * network_gflop(features, batch * math.prod(patch))
        rows.append(row_of(what, times, work))
    fields = {"features": 16, "patch": (64, 64, 16), "batch": 8}
    fields |= {"cases": 8, "size": (128, 128, 64)}
    peer = {form: {"form": form, **fields} for form in LAYOUTS}
    times = take_turns(setting, "fed", ours={"ours": fields}, peer=peer)
    rows.append(row_of("the last, patches drawn from a cohort in memory", times, work))
    return rows


def samples(setting: Setting) -> list[Row]:
    rows = []
    setting.once("ours", "weights", features=16, path=setting.weights)
    fields = {"features": 16, "patch": PATCH, "windows": 2}
    work = 10 * network_gflop(16, 2 * math.prod(PATCH))
    for rate, kind in SAMPLES:
        forms = ("loop", "loop channels_last", "batch", "compile loop")
        peer_fields = {**fields, "rate": rate, "path": setting.weights}
        peer = {form: {"form": form, **peer_fields} for form in forms}
        ours = {"ours": {**fields, "rate": rate, "kind": kind}}
        times = take_turns(setting, "samples", ours=ours, peer=peer)
        what = f"10 samples of 2 windows, rate {rate} {kind}"
        rows.append(row_of(what, times, work))
    forms = ("loop bfloat16", "loop channels_last bfloat16")
    peer_fields = {**fields, "rate": 0.1, "path": setting.weights}
    peer = {form: {"form": form, **peer_fields} for form in forms}
    same = {**fields, "rate": 0.1, "kind": "spatial", "dtype": "bfloat16"}
    times = take_turns(setting, "samples", ours={"ours": same}, peer=peer)
    what = "10 samples of 2 windows, rate 0.1 spatial, bfloat16"
    return [*rows, row_of(what, times, work)]


def case(setting: Setting) -> list[Row]:
    """Compares MONAI's sliding windows with ours at equal windows, and at our own."""
    rows, size = [_plain(setting)], (128, 128, 128)
    fields = {"features": 16, "patch": PATCH, "overlap": 0.25, "windows": 2}
    fields["count"] = 10
    for rate, kind in SAMPLES:
        what = f"10 samples of {by(size)}, windows {by(PATCH)}, rate {rate} {kind}"
        rows.append(_case(setting, what, {**fields, "size": size}, rate, kind))
    size = (256, 256, 48)
    what = f"10 samples of {by(size)}, ours by windows 256x256x16, rate 0.1"
    fields |= {"size": size}
    ours = {"patch": (256, 256, 16), "windows": 1}
    rows.append(_case(setting, what, fields, 0.1, "spatial", **ours))
    return rows


def whole(setting: Setting) -> list[Row]:
    """Compares the paper's volume, once: two samples, since all take the same time.

    The peer's loop is not warmed up: it takes minutes and compiles nothing.
    """
    setting.once("ours", "weights", features=16, path=setting.weights)
    fields = {"features": 16, "patch": PATCH, "size": (256,) * 3, "overlap": 0.25}
    fields |= {"windows": 2, "count": 2}
    ours = {"patch": (256, 256, 16), "windows": 1}
    what = "2 samples of 256x256x256, ours by windows 256x256x16, rate 0.1"
    return [_case(setting, what, fields, 0.1, "spatial", **ours, most=1, once=True)]


def _case(
    setting: Setting,
    what: str,
    fields: Row,
    rate: float,
    kind: str,
    *,
    most: int = 2,
    once: bool = False,
    **ours,
) -> Row:
    fields = {**fields, "rate": rate}
    loop = {**fields, "path": setting.weights, "form": "loop"}
    peer = {"loop": {**loop, "once": True} if once else loop}
    own = {"ours": {**fields, "kind": kind, **ours}}
    times = take_turns(setting, "case", ours=own, peer=peer, most=most)
    patch = own["ours"]["patch"]
    windows = len(window_corners(fields["size"], patch, fields["overlap"]))
    passes = fields["count"] * windows
    work = passes * network_gflop(fields["features"], math.prod(patch))
    return row_of(what, times, work)


def _plain(setting: Setting) -> Row:
    """Checks that the two networks are the same one."""
    setting.once("ours", "weights", features=16, path=setting.weights)
    expected = setting.weights + ".npy"
    same = {"features": 16, "patch": PATCH, "size": (256, 128, 32)}
    setting.once("ours", "plain", **same, path=expected)
    found = setting.once(
        "peer", "plain", **same, path=setting.weights, expected=expected
    )
    return {"what": "largest difference of a plain pass", "answer": found}


def measures(setting: Setting) -> list[Row]:
    fields = {"size": (256, 256, 256)}
    times = take_turns(
        setting, "d_pw", ours={"ours": fields}, peer={"45 pairs": fields}
    )
    return [row_of("D_pw of ten 256x256x256 masks", times)]


def layer_gflop(shape, channels) -> float:
    """Returns the GFLOP of a convolution: two for each product of a direct one."""
    return 2 * 27 * math.prod(channels) * math.prod(shape) / 1e9


def network_gflop(features: int, voxels: int) -> float:
    """Returns the GFLOP of one pass over so many voxels, all channels computed."""
    wider = features / LAYERS[0][1][1]
    inner = sum(layer_gflop(shape, channels) for shape, channels, _ in LAYERS[1:])
    all_layers = wider * layer_gflop(*LAYERS[0][:2]) + wider**2 * inner
    return all_layers * voxels / math.prod(LAYERS[0][0])


def by(shape) -> str:
    return "x".join(map(str, shape))
