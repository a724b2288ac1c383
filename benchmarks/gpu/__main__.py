"""What a GPU is for, on one card in minutes: right, how fast, and where time goes.

    python -m benchmarks.gpu [--seconds 480] [--output benchmarks/results/gpu]
        [--only PART ...] [--toy]

Parts come in the order of their worth; one that fails is a line of the table, and what
the time does not suffice for is left out by name. Contenders take turns on the card,
each in a process of its own; PyTorch's are left out where it is not installed. Needs no
MONAI. --toy runs every part at sizes that take two cores two minutes; its numbers
mean nothing.
Writes into OUTPUT: gpu.json (every result, as soon as it is there), gpu.md (the table),
kernels.txt (the profiles) and log.txt (what the processes said).
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from benchmarks.gpu import parts, runs
from benchmarks.gpu.bench import Bench, ratio_of
from benchmarks.gpu.sizes import FULL, TOY

# Seconds that a part needs to be worth beginning, and that it may take at full size.
PARTS = {
    "machine": (5, 90),
    "correctness": (15, 160),
    "samples": (30, 200),
    "training": (30, 150),
    "profile": (15, 60),
    "evaluation": (30, 150),
    "precision": (20, 90),
    "same bits": (20, 120),
    "rivals": (30, 60),
    "commands": (25, 120),
    "layers": (10, 120),
    "more rivals": (15, 400),
}


def main() -> int:
    arguments = _arguments()
    sizes = TOY if arguments.toy else FULL
    bench = Bench(sizes, arguments.seconds, Path(arguments.output))
    try:
        _do(bench, arguments.only)
        _write(bench, arguments)
    finally:
        bench.close()
    return int(any(row.get("failed") for row in bench.rows))


def _do(bench: Bench, only: list[str]) -> None:
    """Does all parts, or `only` some, in order; none waits while another could go on.

    What a CPU can do for them begins at once.
    """
    bench.begin("aside", bench.left())
    chosen = only or list(PARTS)
    aside = {}
    if "correctness" in chosen:
        aside["answers"] = parts.references(bench)
    if {"evaluation", "precision", "commands"} & set(chosen):
        aside["cohorts"] = runs.cohorts(bench)
    every = {
        "machine": lambda: parts.machine(bench),
        "correctness": lambda: parts.correctness(bench, aside["answers"]),
        "samples": lambda: parts.samples(bench),
        "training": lambda: parts.training(bench),
        "evaluation": lambda: runs.evaluation(bench, aside["cohorts"]),
        "precision": lambda: runs.precision(bench),
        "same bits": lambda: runs.same_bits(bench),
        "rivals": lambda: parts.rivals(bench, parts.FIRST),
        "profile": lambda: parts.profile(bench),
        "commands": lambda: runs.commands(bench, aside["cohorts"]),
        "layers": lambda: parts.layers(bench),
        "more rivals": lambda: parts.rivals(bench, parts.OTHERS),
    }
    needs = {name: aside.get("cohorts") for name in ("evaluation", "commands")}
    needs["correctness"] = aside.get("answers")
    while chosen:
        ready = [name for name in chosen if _is_ready(name, needs.get(name), chosen)]
        name = next(iter(ready), chosen[0])
        chosen.remove(name)
        _guarded(bench, name, every[name])


def _is_ready(name: str, needed: Future | None, to_do: list[str]) -> bool:
    """Tells whether a part would neither wait for the CPU nor lack its trained run."""
    if name == "precision":
        return "evaluation" not in to_do
    return needed is None or needed.done()


def _guarded(bench: Bench, name: str, run: Callable[[], None]) -> None:
    least, most = PARTS[name] if bench.sizes is FULL else (1, bench.left())
    bench.begin(name, most)
    if bench.left() < least:
        bench.say(name, "left out: no time", left_out=True)
        return
    try:
        run()
    except Exception as error:
        bench.fail(name, f"{type(error).__name__}: {error}".splitlines()[0])


def _write(bench: Bench, arguments: argparse.Namespace) -> None:
    """Prints the table and puts it into gpu.md, ratios of what was compared last."""
    lines = ["| part | what | result |", "| --- | --- | --- |"]
    lines += [f"| {r['part']} | {r['what']} | {r['told']} |" for r in bench.rows]
    ratios = ["", "| compared | ours, ms | PyTorch's best, ms | ratio |"]
    ratios.append("| --- | --- | --- | --- |")
    for what, times in bench.best.items():
        if ratio := ratio_of(times):
            peers = [t for name, t in times.items() if name.startswith("PyTorch")]
            ours = [t for name, t in times.items() if not name.startswith("PyTorch")]
            numbers = f"{1e3 * min(ours):.2f} | {1e3 * min(peers):.2f} | {ratio:.2f}"
            ratios.append(f"| {what} | {numbers} |")
    assert __doc__ is not None
    title = "# On a GPU" + (", toy sizes: not a measurement" if arguments.toy else "")
    text = "\n".join([title, "", *lines, *ratios]) + "\n"
    (bench.folder / "gpu.md").write_text(text, encoding="utf-8")
    print(f"\n{text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--output", default="benchmarks/results/gpu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument("--toy", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
