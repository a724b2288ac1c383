"""The parts that run the product: evaluation, precision, and whether bits repeat."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, checked, end
from benchmarks.peers.contender import LATE, Contender
from benchmarks.peers.table import Row

_DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true"
_NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def cohorts(bench: Bench) -> Future[list[Row]]:
    """Draws and prepares both runs' cohorts on the CPU while other parts run."""
    given = [_study(bench), _command(bench)]
    return bench.aside(*(("prepare", {"fields": f, "once": True}) for f in given))


def evaluation(bench: Bench, prepared: Future[list[Row]]) -> None:
    """Times a training and the evaluation of its cases, as `unc_jax.main` does them."""
    prepared.result()
    contender, folder = bench.fresh(), str(bench.scratch / "study")
    fields = _study(bench)
    trained = _answer(contender, "train_run", fields=fields, folder=folder)
    told = f"{trained['seconds']:.1f} s, {trained['steps_per_second']:.1f} steps a s"
    bench.say(f"training of {fields['train.steps']} steps", told, **trained)
    found = _answer(contender, "evaluate_run", fields=fields, folder=folder)
    bench.done(contender)
    case, sampling, plain, ratio = (
        found[name]
        for name in (
            *("case_seconds", "sampling_seconds", "plain_seconds"),
            "wall_over_sampling",
        )
    )
    told = f"{case:.2f} s a case, samples alone {sampling:.2f} s, plain pass "
    told += f"{plain:.2f} s: ratio {ratio:.2f}"
    bench.say(f"evaluation of {found['cases']} cases", told, **found)


def precision(bench: Bench) -> None:
    """Compares bfloat16 with float32 on the network that `evaluation` trained."""
    given = {"fields": _study(bench), "folder": str(bench.scratch / "study")}
    cases = bench.sizes.compared
    answer = bench.once("precision", **given, cases=cases, once=True)["answer"]
    apart = answer["largest_difference"]
    told = ", ".join(f"{name} {value:.1e}" for name, value in apart.items())
    bench.say(f"bfloat16 - float32 of {cases} cases", told, **answer)
    for dtype in ("bfloat16", "float32"):
        numbers = {name: answer[dtype][name] for name in apart}
        told = ", ".join(
            f"{name} {'/'.join(f'{value:.3g}' for value in values)}"
            for name, values in numbers.items()
        )
        seconds = min(answer[dtype]["seconds"])
        bench.say(f"measures in {dtype}", f"{told}; {seconds:.2f} s a case")


def same_bits(bench: Bench) -> None:
    """Trainings of the same weights on the same batch, with and without the option."""
    sizes = bench.sizes
    fields = {"features": sizes.features, "depth": sizes.depth}
    fields |= {"patch": sizes.patch, "batch": sizes.batch}
    fields |= {"dtype": "bfloat16", "count": sizes.same_bits}
    fields["per_call"] = min(10, sizes.same_bits)
    options = {"as it is": "", "deterministic operations": _DETERMINISTIC}
    contenders = {}
    for name, flag in options.items():  # all import at the same time, then take turns
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        new = [bench.fresh(XLA_FLAGS=flags, **_NO_CACHE) for _ in range(2)]
        contenders[name] = new
    seconds = {}
    for name, pair in contenders.items():
        digests = []
        for contender in pair:
            answers = [
                checked(contender.do("steps", **fields))["answer"] for _ in range(2)
            ]
            contender.close()
            digests.append([one["digest"] for one in answers])
            seconds[name] = min(one["step_seconds"] for one in answers)
        within = all(len(set(own)) == 1 for own in digests)
        across = within and digests[0] == digests[1]
        told = f"one process {_same(within)}, compiled twice {_same(across)}, "
        told += f"{1e3 * seconds[name]:.1f} ms a step"
        facts = {"within": within, "across": across, "step_seconds": seconds[name]}
        bench.say(f"{sizes.same_bits} steps twice, {name}", told, **facts)
    price = seconds["deterministic operations"] / seconds["as it is"]
    bench.say("price of deterministic operations", f"{price:.3f} x", ratio=price)


def commands(bench: Bench, prepared: Future[list[Row]]) -> None:
    """Runs the real command undisturbed, killed, resumed; CPU and GPU exchange runs."""
    prepared.result()
    fields = _command(bench)
    on_cpu = _train(bench, "on_cpu", JAX_PLATFORMS="cpu")
    killed = _killed(bench)
    # Behind the killed one, whose programs both find compiled.
    at_once = [on_cpu, *(_train(bench, name) for name in ("killed", "undisturbed"))]
    with_gpu, with_cpu = bench.fresh(), bench.fresh(JAX_PLATFORMS="cpu")
    for process in at_once:
        _finish(process)
    digests = {}
    for name in ("undisturbed", "on_cpu"):
        given = {"fields": fields, "folder": str(bench.scratch / name)}
        given["path"] = str(bench.scratch / f"{name}.npz")
        _answer(with_cpu, "predict", **given, reference=True)
        found = _answer(with_gpu, "predict", **given, reference=False)
        digests[name] = found["digest"]
        told = f"plain pass {found['plain_pass']:.1e}, mean of samples "
        told += f"{found['mean_of_samples']:.1e} apart at most"
        where = "the CPU" if name == "on_cpu" else "the device"
        bench.say(f"trained on {where}, predicted by both, float32", told, **found)
    given = {"fields": fields, "folder": str(bench.scratch / "killed")}
    path = str(bench.scratch / "killed.npz")
    other = _answer(with_cpu, "predict", **given, path=path, reference=True)
    bench.done(with_gpu)
    with_cpu.close()
    same = other["digest"] == digests["undisturbed"]
    bench.say("killed and resumed against undisturbed", f"{_same(same)}; {killed}",
              same=same)  # fmt: skip


def _killed(bench: Bench) -> str:
    """Starts the run "killed" and kills it at its first checkpoint; says at which."""
    process = _train(bench, "killed")
    steps = (bench.scratch / "killed" / "checkpoints").glob
    while process.poll() is None and not any(steps("step_????????")):
        time.sleep(0.005)
    ended = process.poll() is not None
    end(process)
    process.wait()
    last = max((path.name for path in steps("step_????????")), default="none")
    return "it ended before it could be killed" if ended else f"killed after {last}"


def _train(bench: Bench, name: str, **environment: str) -> subprocess.Popen:
    words = ["-m", "unc_jax.main", "--config", "configs/base.py", "--stage", "train"]
    words += ["--workdir", str(bench.scratch / name)]
    return bench.command([*words, *_flags(_command(bench))], **environment)


def _finish(process: subprocess.Popen) -> None:
    if code := process.wait():
        late = code == -signal.SIGKILL
        raise RuntimeError(LATE if late else f"unc_jax.main ended with {code}")


def _flags(fields: dict[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        value = tuple(value) if isinstance(value, list) else value
        yield f"--config.{name}={value}"


def _study(bench: Bench) -> dict[str, Any]:
    return {**bench.sizes.study, "data.prepared": _prepared(bench)}


def _command(bench: Bench) -> dict[str, Any]:
    return {**bench.sizes.command, "data.prepared": _prepared(bench)}


def _prepared(bench: Bench) -> str:
    return str(Path(bench.scratch) / "prepared")


def _answer(contender: Contender, task: str, **arguments: Any) -> Row:
    return checked(contender.do(task, **arguments, once=True))["answer"]


def _same(same: bool) -> str:
    return "the same bits" if same else "OTHER bits"
