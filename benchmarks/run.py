"""This package against PyTorch and MONAI, side by side on one machine.

    pip install -r benchmarks/requirements.txt
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.run [NAME ...]
        [--torch-python PYTHON] [--repeat 5] [--output benchmarks/results/peers]

NAME: conv3d, training, samples, case, whole, measures, cold, growth; all by default.
Both sides compute on the first GPU if JAX and PyTorch see one; what a GPU is for,
`python -m benchmarks.gpu` measures.
Contenders are processes of their own that take turns, task by task, so that what else
the machine does hits all alike; a time is the median of the repeats (of a case 2, of
the whole one 1) after one that warms up. Ratios are peer/ours: above 1, ours is faster.
Writes OUTPUT.md and OUTPUT.json, beside what is there of other names.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import costs, matches
from benchmarks.peers.table import Row, markdown
from benchmarks.peers.turns import Setting

BENCHMARKS = {
    "conv3d": matches.conv3d,
    "training": matches.training,
    "samples": matches.samples,
    "case": matches.case,
    "whole": matches.whole,
    "measures": matches.measures,
    "cold": costs.cold,
    "growth": costs.growth,
}


def main() -> None:
    arguments = _arguments()
    output = Path(arguments.output)
    for name in arguments.names or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            weights = f"{folder}/weights.npz"
            setting = Setting(arguments.torch_python, arguments.repeat, weights)
            facts = {**_facts(setting), "repeat": arguments.repeat}
            rows = BENCHMARKS[name](setting)
        result = {"benchmark": name, "machine": facts, "rows": rows}
        _write(output, result)
        print(markdown(result), flush=True)


def _facts(setting: Setting) -> Row:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((one.split(":")[1].strip() for one in lines if "model name" in one), "?")
    ours, peer = (setting.once(s, "machine")["answer"] for s in ("ours", "peer"))
    on_gpu = ours["device"] != "cpu"
    if on_gpu != (peer["device"] != "cpu"):
        raise SystemExit(
            f"error: JAX computes on {ours['device']} and PyTorch on {peer['device']}; "
            "install both for the GPU, or set JAX_PLATFORMS=cpu"
        )
    return {
        "device": ours["device"] if on_gpu else f"{os.cpu_count()} cores of {cpu}",
        "python": platform.python_version(),
        "jax": ours["jax"],
        "torch": peer["torch"],
        "matrix_product_gflops": max(ours["peak_gflops"], peer["peak_gflops"]),
        "matrix_product_type": "bfloat16" if on_gpu else "float32",
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
    }


def _write(output: Path, result: Row) -> None:
    """Puts the result in the place of an older one of its name."""
    assert __doc__ is not None
    record = output.with_suffix(".json")
    known = json.loads(record.read_text()) if record.exists() else []
    results = {one["benchmark"]: one for one in [*known, result]}
    listed = [results[name] for name in BENCHMARKS if name in results]
    text = f"# Against PyTorch and MONAI\n\n{__doc__.partition(chr(10))[2].strip()}\n\n"
    body = "\n".join(markdown(one) for one in listed)
    output.with_suffix(".md").write_text(text + body, encoding="utf-8")
    record.write_text(json.dumps(listed, indent=1) + "\n")


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
