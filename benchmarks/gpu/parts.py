"""The parts that compare with PyTorch, or with what is right. `Bench` says results."""

import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from benchmarks.gpu.bench import NO_TORCH, Bench, checked
from benchmarks.peers.matches import by, layer_gflop
from benchmarks.peers.table import Row

# Dtype, precision of products, and limits of relative errors against float32 of a CPU.
# A result of bfloat16 is rounded by 2**-9, and so are a block's sums of kernels and a
# network's layers; TF32 is near 3e-4. "highest" leaves out the matrix units, which
# truncate sums: what is then wrong is a library, not rounding.
_LIMITS = {
    "bfloat16": ("bfloat16", "default", {"layer": 1e-2, "network": 5e-2}),
    "float32": ("float32", "default", {"layer": 1e-3, "network": 1e-2}),
    "float32 without TF32": ("float32", "highest", {"layer": 1e-4, "network": 1e-3}),
}
# The fastest that were tried; OTHERS are what they were faster than.
_COMPILED = "compile batch channels_last bfloat16"
FIRST = (("own", _COMPILED),)
OTHERS = (  # slower where they were tried
    ("step", "channels_last bfloat16"),
    ("equal", "loop channels_last bfloat16"),
    ("equal", "compile loop channels_last bfloat16"),
    ("step", "compile bfloat16"),
    ("equal", "compile loop bfloat16"),
    ("step", "bfloat16"),
    ("equal", "loop bfloat16"),
)


def machine(bench: Bench) -> None:
    """Says versions, card and its matrix product; draws the weights for the peer."""
    sides = ["ours", "peer"] if bench.has_torch else ["ours"]
    contenders = {side: bench.fresh(side) for side in sides}
    bench.say("python", platform.python_version())
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total"]
        found = subprocess.run([*query, "--format=csv,noheader"], capture_output=True)
        bench.say("card", found.stdout.decode().strip())
    for side, contender in contenders.items():
        facts = contender.do("machine")
        if side == "ours":
            drawn = contender.do("weights", path=bench.weights, **_network(bench))
        bench.done(contender, side)
        answer = checked(facts)["answer"]
        peak = answer["peak_gflops"] / 1e3
        version = " ".join(f"{k} {v}" for k, v in answer.items() if k != "peak_gflops")
        bench.say(version, f"matrix product {peak:.1f} TFLOP/s", **answer)
    checked(drawn)
    if not bench.has_torch:
        bench.say("PyTorch", NO_TORCH, left_out=True)


def references(bench: Bench) -> Future[list[Row]]:
    """Computes what the checks are compared with, by a CPU while other parts run."""
    tasks = [(task, {**given, "dtype": "float32", "products": "highest",
                     "reference": True, "once": True})
             for _, task, given in _checks(bench)]  # fmt: skip
    return bench.aside(*tasks)


def correctness(bench: Bench, expected: Future[list[Row]]) -> None:
    expected.result()
    contender = bench.fresh()
    for name, (dtype, products, limits) in _LIMITS.items():
        for what, task, given in _checks(bench):
            fields = {**given, "dtype": dtype, "products": products}
            fields |= {"reference": False, "once": True}
            reply = contender.do(task, **fields)
            if "error" in reply:
                bench.fail(f"{what}, {name}", reply["error"])
                continue
            errors, limit = reply["answer"], limits[task]
            wrong = not max(errors) <= limit
            told = " / ".join(f"{error:.1e}" for error in errors)
            told = f"relative error {told}, limit {limit:.0e}"
            told = f"FAILED: {told}" if wrong else told
            bench.say(f"{what}, {name}", told, errors=errors, failed=wrong)
    bench.done(contender)


def _checks(bench: Bench) -> list[tuple[str, str, dict[str, Any]]]:
    """Returns name, task, arguments: outputs of the windows of a case, gradients of the
    patches of a step, and the whole network."""
    sizes, checks = bench.sizes, []
    for _, channels, low in sizes.layers[:2]:
        for gradients in (False, True):
            place = sizes.patch if gradients else sizes.plane
            batch = sizes.batch if gradients else sizes.samples
            given = {"shape": place, "channels": channels, "low": low, "batch": batch}
            kind = "gradients" if gradients else "output"
            what = f"{kind} of {_layer_name(place, channels, low)}, {batch} of them"
            given |= {"gradients": gradients}
            checks.append((what, "layer", given))
    given = {**_network(bench), "patch": sizes.patch, "size": sizes.checked}
    checks.append((f"whole network, {by(sizes.checked)}", "network", given))
    for number, (_, _, given) in enumerate(checks):
        given["path"] = str(bench.scratch / f"expected{number}.npz")
    return checks


def samples(bench: Bench) -> None:
    """Times ten samples with measures: equal windows, each by its own, one window."""
    sizes = bench.sizes
    ours, peer = _case_fields(bench)
    bench.race(
        _case_name(bench, "equal windows"),
        "case",
        ours={"ours": ours},
        peer={_COMPILED: {**peer, "form": _COMPILED}},
        repeat=sizes.repeat[0],
    )
    own = {name: ours[name] for name in ("features", "depth", "size", "rate", "kind")}
    own |= {"count": sizes.samples, "dtype": "bfloat16"}
    bench.race(
        _case_name(bench, "own windows"),
        "case_by_default",
        ours={"ours": own},
        peer={},
        repeat=sizes.repeat[0],
    )
    whole = {**ours, "patch": sizes.volume, "windows": 1}
    bench.race(
        _case_name(bench, "the volume as one window"),
        "case",
        ours={"ours": whole},
        peer={},
        repeat=sizes.repeat[0],
    )


def training(bench: Bench) -> None:
    """Updates by the product, a call each and many a call, and by PyTorch."""
    sizes = bench.sizes
    fields = _training_fields(bench)
    resident = {**fields, "dtype": "bfloat16"}
    resident |= {"cases": sizes.resident, "size": sizes.volume}
    compiled = "compile channels_last bfloat16"
    for task, ours, peer in (
        ("fed", {f"ours, {sizes.steps} a call, resident": resident}, {}),
        (
            "train",
            {"ours, a call each": {**fields, "dtype": "bfloat16"}},
            {compiled: {**fields, "form": compiled}},
        ),
    ):
        what, repeat = _training_name(bench), sizes.repeat[1]
        bench.race(what, task, ours=ours, peer=peer, repeat=repeat, per=sizes.steps)


def rivals(bench: Bench, forms: Sequence[tuple[str, str]]) -> None:
    """Times PyTorch in other forms: "own" or "equal" windows, or a training "step"."""
    sizes = bench.sizes
    _, equal = _case_fields(bench)
    patch, windows = sizes.own_windows
    own = {**equal, "patch": patch, "windows": windows}
    works = {
        "equal": (_case_name(bench, "equal windows"), "case", equal, 1),
        "own": (_case_name(bench, "own windows"), "case", own, 1),
        "step": (_training_name(bench), "train", _training_fields(bench), sizes.steps),
    }
    for work, form in forms:
        what, task, fields, per = works[work]
        peer = {form: {**fields, "form": form}}
        bench.race(what, task, ours={}, peer=peer, repeat=2, per=per)


def layers(bench: Bench) -> None:
    """Times single layers by each form of ours and by PyTorch, forward, then gradients.

    "xla" is the plain convolution, where a GPU has another form.
    """
    sizes, rival = bench.sizes, "channels_last bfloat16"
    held = {form: bench.fresh() for form in ("ours", "xla")}
    if bench.has_torch:
        held[rival] = bench.fresh("peer")
    for gradients in (False, True):
        for shape, channels, low in sizes.layers:
            fields = {"shape": shape, "channels": channels, "low": low}
            fields |= {"gradients": gradients, "batch": sizes.layer_batch}
            names = ("ours", "xla") if low or channels[0] == 1 else ("ours",)
            forms = {form: {**fields, "form": form, "dtype": "bfloat16"}
                     for form in names}  # fmt: skip
            peer = {rival: {**fields, "form": rival}} if bench.has_torch else {}
            work = layer_gflop(shape, channels) * (3 if gradients else 1) / 1e3
            what = f"{sizes.layer_batch} of {_layer_name(shape, channels, low)}"
            what += ", forward and gradients" if gradients else ", forward"
            what += f", {sizes.layer_batch * work:.2f} TFLOP"
            bench.race(what, "conv", ours=forms, peer=peer, repeat=5, held=held)
    for contender in held.values():
        contender.close()


def profile(bench: Bench) -> None:
    """Kernels of a case and of a training step by time, into kernels.txt."""
    case, _ = _case_fields(bench)
    fields = {**_training_fields(bench), "dtype": "bfloat16"}
    for what, task, given in (
        (_case_name(bench, "equal windows"), "case", case),
        (f"{bench.sizes.steps} training steps", "train", fields),
    ):
        try:
            reply = bench.once("profiled", of=task, arguments=given, once=True)
        except RuntimeError as error:
            bench.fail(f"profile of {what}", str(error))
            continue
        found = reply["answer"]
        kernels = found.pop("kernels")
        lines = [f"{ms:10.2f} ms {number:6d} x {name}" for name, ms, number in kernels]
        with (bench.folder / "kernels.txt").open("a") as file:
            file.write("\n".join([what, json.dumps(found), *lines, "", ""]))
        print("\n".join(line[:110] for line in lines[:15]), flush=True)
        busy, span = found["busy_ms"], found["span_ms"]
        bench.say(f"profile of {what}", f"busy {busy:.1f} of {span:.1f} ms", **found)


def _case_fields(bench: Bench) -> tuple[Row, Row]:
    sizes = bench.sizes
    both = {**_network(bench), "patch": sizes.plane, "size": sizes.volume}
    both |= {"overlap": 0.25, "windows": 1, "rate": 0.1, "count": sizes.samples}
    ours = {**both, "kind": "spatial", "dtype": "bfloat16"}
    return ours, {**both, "path": bench.weights}


def _case_name(bench: Bench, windows: str) -> str:
    return f"{bench.sizes.samples} samples of {by(bench.sizes.volume)}, {windows}"


def _training_fields(bench: Bench) -> Row:
    sizes = bench.sizes
    fields = {**_network(bench), "patch": sizes.patch, "batch": sizes.batch}
    return {**fields, "steps": sizes.steps}


def _network(bench: Bench) -> Row:
    return {"features": bench.sizes.features, "depth": bench.sizes.depth}


def _training_name(bench: Bench) -> str:
    return f"training step, {bench.sizes.batch} of {by(bench.sizes.patch)}"


def _layer_name(shape, channels, low: int) -> str:
    name = f"{by(shape)} {channels[0]}->{channels[1]}"
    return f"{name} ({low} upsampled)" if low else name
