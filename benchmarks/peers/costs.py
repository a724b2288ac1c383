"""What a first result costs, and how the cost of a case grows: rows of the table."""

import tempfile
import time

from benchmarks.peers.table import Row, row_of
from benchmarks.peers.turns import Setting, take_turns

COUNTS = (2, 5, 10, 20, 50)
SIZES = (64, 128, 192, 256)
OVERLAPS = (0.0, 0.125, 0.25, 0.5)
_FIELDS = {"features": 8, "windows": 1, "rate": 0.1, "kind": "spatial"}


def cold(setting: Setting) -> list[Row]:
    """Times two windows' samples from nothing; ours again from its compile cache."""
    setting.once("ours", "weights", features=16, path=setting.weights)
    fields = {"features": 16, "patch": (128, 128, 16), "windows": 2, "rate": 0.1}
    peer = {**fields, "path": setting.weights}
    with tempfile.TemporaryDirectory() as folder:
        cache = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        starts = {
            "ours, nothing compiled": ("ours", cache, {**fields, "kind": "spatial"}),
            "ours, compiled before": ("ours", cache, {**fields, "kind": "spatial"}),
            "loop": ("peer", {}, {**peer, "form": "loop"}),
            "compile loop": ("peer", {}, {**peer, "form": "compile loop"}),
        }
        return [
            _start(setting, what, side, environment, arguments)
            for what, (side, environment, arguments) in starts.items()
        ]


def _start(
    setting: Setting, what: str, side: str, environment: dict[str, str], arguments: Row
) -> Row:
    started = time.perf_counter()
    contender = setting.fresh(side, **environment)
    contender.do("nothing")
    imported = time.perf_counter() - started
    reply = contender.do("samples", **arguments)
    contender.close()
    if "first_seconds" not in reply:
        return {"what": what, "answer": {"answer": reply.get("error")}}
    first, again = reply["first_seconds"], reply["seconds"]
    told = (
        f"import {imported:.1f} s, first result {first:.1f} s, the next {again:.1f} s"
    )
    return {"what": what, "answer": {"answer": told}}


def growth(setting: Setting) -> list[Row]:
    """Ours against the number of samples, the volume and the windows' overlap."""
    rows = []
    base = {**_FIELDS, "patch": (64, 64, 16), "overlap": 0.25}
    for count in COUNTS:
        fields = {**base, "size": (64, 64, 64), "count": count}
        rows.append(_own(setting, f"64x64x64, {count} samples", fields, count))
    for size in SIZES:
        fields = {**base, "patch": (size, size, 16), "size": (size,) * 3, "count": 2}
        work = 2 * (size / 64) ** 3
        rows.append(_own(setting, f"{size} cubed, 2 samples", fields, work))
    for overlap in OVERLAPS:
        fields = {**base, "size": (128,) * 3, "overlap": overlap, "count": 2}
        what = f"128 cubed by windows 64x64x16, 2 samples, overlap {overlap}"
        rows.append(_own(setting, what, fields, 2 * 2**3))
    return rows


def _own(setting: Setting, what: str, fields: Row, work: float) -> Row:
    """Times `work`, in samples of 64 cubed: seconds per unit show where it bends."""
    times = take_turns(setting, "case", ours={"ours": fields}, peer={}, most=3)
    row = row_of(what, times)
    seconds = times["ours"].get("seconds")
    return {**row, "unit_ms": 1000 * seconds / work} if seconds else row
