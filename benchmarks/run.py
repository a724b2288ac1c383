"""This package against PyTorch and MONAI, side by side on one machine.

    pip install -r benchmarks/requirements.txt
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.run [NAME ...]
        [--torch-python PYTHON] [--repeat 5] [--output benchmarks/results/peers]

NAME: conv3d, training, samples, case, measures; all by default. Contenders are
processes of their own that take turns, task by task, so that what else the machine does
hits all alike; every time is the median of the repeats after one that warms up.
Ratios are peer/ours: above 1, ours is faster. Writes OUTPUT.md and OUTPUT.json.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.contender import Contender
from benchmarks.peers.table import Row, markdown, row_of

# Layers of the default network over a 128x128x16 patch: volume, channels in and out.
LAYERS = (
    ((128, 128, 16), (1, 32)),
    ((128, 128, 16), (32, 64)),
    ((64, 64, 8), (64, 64)),
    ((64, 64, 8), (64, 128)),
    ((32, 32, 4), (128, 128)),
    ((32, 32, 4), (128, 256)),
    ((16, 16, 2), (256, 256)),
    ((16, 16, 2), (256, 512)),
    ((32, 32, 4), (768, 256)),
    ((32, 32, 4), (256, 128)),
    ((64, 64, 8), (256, 128)),
    ((64, 64, 8), (128, 64)),
    ((128, 128, 16), (128, 64)),
    ((128, 128, 16), (64, 32)),
)
TRAININGS = ((32, (128, 128, 16), 1), (16, (128, 128, 16), 2), (16, (64, 64, 16), 8))
SAMPLES = ((16, 0.1, "spatial"), (16, 0.5, "spatial"), (16, 0.5, "fixed"))
PATCH = (128, 128, 16)


class Setting(NamedTuple):
    ours: Contender
    peer: Contender
    repeat: int
    weights: str


def main() -> None:
    arguments = _arguments()
    written = []
    for name in arguments.names or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(
                Contender(sys.executable, "benchmarks.peers.ours"),
                Contender(arguments.torch_python, "benchmarks.peers.pytorch"),
                arguments.repeat,
                f"{folder}/weights.npz",
            )
            facts = {**_facts(setting), "repeat": arguments.repeat}
            rows = BENCHMARKS[name](setting)
            setting.ours.close()
            setting.peer.close()
        written.append({"benchmark": name, "machine": facts, "rows": rows})
        _write(Path(arguments.output), written)
        print(markdown(written[-1]), flush=True)


def conv3d(setting: Setting) -> list[Row]:
    rows = []
    for gradients in (False, True):
        total: dict[str, float] = {}
        for shape, channels in LAYERS:
            fields = {"shape": shape, "channels": channels, "gradients": gradients}
            times = take_turns(
                setting,
                ours={form: {"form": form, **fields} for form in ("ours", "xla")},
                peer={
                    form: {"form": form, **fields}
                    for form in ("contiguous", "channels_last")
                },
                task="conv",
            )
            flops = 2 * 27 * channels[0] * channels[1] * shape[0] * shape[1] * shape[2]
            work = flops * (3 if gradients else 1) / 1e9
            what = "x".join(map(str, shape)) + f" {channels[0]}->{channels[1]}"
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
        forms = ("contiguous", "channels_last")
        peer = {form: {"form": form, **fields} for form in forms}
        times = take_turns(setting, ours={"ours": fields}, peer=peer, task="train")
        name = "x".join(map(str, patch))
        rows.append(
            row_of(f"training step, {features} features, {batch} of {name}", times)
        )
    return rows


def samples(setting: Setting) -> list[Row]:
    rows = []
    for features, rate, kind in SAMPLES:
        setting.ours.do("weights", features=features, path=setting.weights)
        fields = {"features": features, "patch": PATCH, "windows": 2, "rate": rate}
        forms = ("loop", "loop channels_last", "batch", "compile loop")
        path = {"path": setting.weights}
        peer = {form: {"form": form, **fields, **path} for form in forms}
        ours = {"ours": {**fields, "kind": kind}}
        times = take_turns(setting, ours=ours, peer=peer, task="samples")
        rows.append(row_of(f"10 samples of 2 windows, rate {rate} {kind}", times))
    return rows


def case(setting: Setting) -> list[Row]:
    rows, size = [], (128, 128, 128)
    setting.ours.do("weights", features=16, path=setting.weights)
    expected = setting.weights + ".npy"
    same = {"features": 16, "patch": PATCH, "size": (256, 128, 32)}
    setting.ours.do("plain", **same, path=expected)
    found = setting.peer.do("plain", **same, path=setting.weights, expected=expected)
    rows.append({"what": "largest difference of a plain pass", "answer": found})
    for overlap, rate, kind in (
        (0.25, 0.1, "spatial"),
        (0.25, 0.5, "spatial"),
        (0.25, 0.5, "fixed"),
    ):
        fields = {"features": 16, "patch": PATCH, "size": size, "overlap": overlap}
        fields |= {"windows": 2, "rate": rate, "count": 10}
        peer = {"loop": {**fields, "path": setting.weights, "form": "loop"}}
        ours = {"ours": {**fields, "kind": kind}}
        times = take_turns(setting, ours=ours, peer=peer, task="case", most=2)
        what = f"10 samples of 128x128x128, overlap {overlap}, rate {rate} {kind}"
        rows.append(row_of(what, times))
    return rows


def measures(setting: Setting) -> list[Row]:
    fields = {"size": (256, 256, 256)}
    times = take_turns(
        setting, ours={"ours": fields}, peer={"45 pairs": fields}, task="d_pw"
    )
    return [row_of("D_pw of ten 256x256x256 masks", times)]


BENCHMARKS = {
    "conv3d": conv3d,
    "training": training,
    "samples": samples,
    "case": case,
    "measures": measures,
}


def take_turns(
    setting: Setting,
    *,
    ours: dict[str, Row],
    peer: dict[str, Row],
    task: str,
    most: int | None = None,
) -> dict[str, Row]:
    """Median seconds of every form, done in turns; peak memory and last answer."""
    sides = [(setting.ours, f, a) for f, a in ours.items()]
    sides += [(setting.peer, f, a) for f, a in peer.items()]
    times: dict[str, list[float]] = {form: [] for _, form, _ in sides}
    replies: dict[str, Row] = {}
    for _ in range(min(setting.repeat, most or setting.repeat)):
        for contender, form, fields in sides:
            reply = contender.do(task, **fields)
            replies[form] = reply
            if "seconds" in reply:
                times[form].append(reply["seconds"])
    for form, seconds in times.items():
        if seconds:
            replies[form]["seconds"] = statistics.median(seconds)
    return replies


def _facts(setting: Setting) -> Row:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((one.split(":")[1].strip() for one in lines if "model name" in one), "?")
    answers = [one.do("machine")["answer"] for one in (setting.ours, setting.peer)]
    return {
        "cpu": f"{os.cpu_count()} cores of {cpu}",
        "python": platform.python_version(),
        "jax": answers[0]["jax"],
        "torch": answers[1]["torch"],
        "matrix_product_gflops": max(answer["peak_gflops"] for answer in answers),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
    }


def _write(output: Path, results: Sequence[Row]) -> None:
    assert __doc__ is not None
    text = f"# Against PyTorch and MONAI\n\n{__doc__.partition(chr(10))[2].strip()}\n\n"
    body = "\n".join(markdown(one) for one in results)
    output.with_suffix(".md").write_text(text + body, encoding="utf-8")
    output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--output", default="benchmarks/results/peers")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    main()
