"""Prints every command of the study, one a line, in an order that works.

python launch/commands.py [DATA_ROOT] [--organ liver|hippocampus|liver_mr]
    [--seeds 0 1 2] [--livers DIR] [--runs runs/liver] [--output results/liver]
    [--python python] [--stage all|setup|runs|compare]

Without DATA_ROOT the study is of a synthetic cohort, reduced as SYNTHETIC says, drawn
around the liver masks of --livers where they are given. The models of liver_mr are
trained once per fold, as its cases are few. Two seeds or more are also evaluated as an
ensemble, by a pass of each and by dropout samples of each.

Lines of `--stage setup` come first, one after the other; those of `--stage runs` depend
on nothing but them, so they can run in parallel or be the elements of a job array; then
those of `--stage compare`, ensembles first, one after the other. Any line can be killed
and run again: what is finished is kept.
"""

import argparse
import itertools
import json
import shlex

# The paper's six models: the config of each, by organ.
STUDIES = {
    "liver": {
        "liver_large_dice": "configs/liver_large_dice.py",
        "liver_small_dice": "configs/liver_small_dice.py",
        "liver_large_wcc": "configs/liver_large_wcc.py",
        "liver_small_wcc": "configs/liver_small_wcc.py",
        "tumor_large_dice": "configs/tumor_large_dice.py",
        "tumor_large_wcc": "configs/tumor_large_wcc.py",
    },
    "hippocampus": {
        "whole_large_dice": "configs/hippocampus.py:whole_dice_large",
        "whole_small_dice": "configs/hippocampus.py:whole_dice_small",
        "whole_large_wcc": "configs/hippocampus.py:whole_wcc_large",
        "whole_small_wcc": "configs/hippocampus.py:whole_wcc_small",
        "part_large_dice": "configs/hippocampus.py:part_dice_large",
        "part_large_wcc": "configs/hippocampus.py:part_wcc_large",
    },
    "liver_mr": {
        f"{target}_{loss}": f"configs/liver_mr.py:{target}_{loss}"
        for target in ("liver", "spleen", "kidneys")
        for loss in ("wcc", "dice")
    },
}
# Values of evaluate.source under which all seeds are evaluated together.
ENSEMBLES = ("ensemble", "dropout")
# Organs whose cases are too few for one split: the number of folds.
FOLDS = {"liver_mr": 5}
# The only place where the synthetic study is smaller than the paper's: grids of a
# quarter of 256 per side, patches in the paper's ratio to them in the plane (1/2 and
# 1/4), a network of a quarter of the channels and three levels, and fewer updates;
# tumours need more of them than livers. The small patch has a quarter of the voxels,
# hence four times the batch, as in the full configs.
SYNTHETIC = {
    "model.features": "8",
    "model.depth": "3",
    "train.steps": "1000",
    "train.learning_rate": "2e-3",
    "train.schedule": "cosine",
    "train.steps_per_call": "20",
    "train.validate_every_steps": "200",
    "train.checkpoint_every_steps": "200",
    "evaluate.window_batch": "8",
    "evaluate.mask_scope": "volume",
}
SYNTHETIC_TARGET = {
    "liver": {"data.shape": "(64, 64, 48)"},
    "tumor": {
        "data.shape": "(72, 64, 36)",
        "train.steps": "3000",
        "train.validate_every_steps": "300",
        "train.checkpoint_every_steps": "300",
    },
}
SYNTHETIC_PATCH = {
    "large": {"train.patch_shape": "(32, 32, 16)", "train.batch": "4"},
    "small": {"train.patch_shape": "(16, 16, 16)", "train.batch": "16"},
}
SYNTHETIC_SCANS = ("--cases", "131", "--seed", "0", "--size", "96,96,64")


def setup_commands(options: argparse.Namespace) -> list[list[str]]:
    """Returns commands for the data and a preparation per target and fold.

    All runs draw one split.
    """
    commands = []
    if not options.data_root:
        draw = [options.python, "-m", "unc_jax.data.phantom", "--output"]
        livers = ["--livers", options.livers] if options.livers else []
        commands.append([*draw, _root(options), *SYNTHETIC_SCANS, *livers])
    for models in _by_target(options).values():
        for fold in _folds(options):
            first = _run_command(models[0], fold, options, seed=options.seeds[0])
            commands.append([*first, "--stage", "prepare"])
    return commands


def run_commands(options: argparse.Namespace) -> list[list[str]]:
    """Returns a training and evaluation per model, seed and fold, seeds outermost."""
    return [
        _run_command(model, fold, options, seed=seed)
        for seed in options.seeds
        for model in STUDIES[options.organ]
        for fold in _folds(options)
    ]


def ensemble_commands(options: argparse.Namespace) -> list[list[str]]:
    """Returns evaluations of all seeds of a model and fold together, if several."""
    commands = []
    for model in STUDIES[options.organ]:
        for fold, source in itertools.product(_folds(options), _sources(options)):
            run = _run_command(model, fold, options, seed=options.seeds[0])
            run[run.index("--workdir") + 1] = _workdir(model, source, fold, options)
            members = [_workdir(model, s, fold, options) for s in options.seeds]
            listed = ", ".join(map(json.dumps, members))
            fields = (f"source={source}", f"members=({listed})")
            flags = [f"--config.evaluate.{field}" for field in fields]
            commands.append([*run, *flags, "--stage", "evaluate"])
    return commands


def compare_commands(options: argparse.Namespace) -> list[list[str]]:
    """Returns ensembles; then tables and figures of all runs, folds by target."""
    groups = {options.output: list(STUDIES[options.organ])}
    if options.organ in FOLDS:
        by_target = _by_target(options)
        groups = {f"{options.output}/{one}": own for one, own in by_target.items()}
    commands = ensemble_commands(options)
    for output, models in groups.items():
        folders = [
            _workdir(model, one, fold, options)
            for model in models
            for one in (*options.seeds, *_sources(options))
            for fold in _folds(options)
        ]
        compare = [options.python, "-m", "unc_jax.compare", *folders]
        commands.append([*compare, "--output", output])
    return commands


def _by_target(options: argparse.Namespace) -> dict[str, list[str]]:
    models: dict[str, list[str]] = {}
    for model in STUDIES[options.organ]:
        models.setdefault(model.split("_")[0], []).append(model)
    return models


def _folds(options: argparse.Namespace) -> list[int | None]:
    return list(range(FOLDS[options.organ])) if options.organ in FOLDS else [None]


def _sources(options: argparse.Namespace) -> tuple[str, ...]:
    return ENSEMBLES if len(options.seeds) > 1 else ()


def _run_command(
    model: str, fold: int | None, options: argparse.Namespace, *, seed: int
) -> list[str]:
    fields = {"data.root": _root(options)}
    if fold is not None:
        fields |= {"data.fold": str(fold), "data.folds": str(FOLDS[options.organ])}
    fields |= {"data.prepared": f"{options.runs}/prepared", "seed": str(seed)}
    if not options.data_root:
        target, size, _ = model.split("_")
        fields |= {**SYNTHETIC, **SYNTHETIC_TARGET[target], **SYNTHETIC_PATCH[size]}
    config = STUDIES[options.organ][model]
    main = [options.python, "-m", "unc_jax.main", "--config", config]
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return [*main, "--workdir", _workdir(model, seed, fold, options), *flags]


def _workdir(
    model: str, one: int | str, fold: int | None, options: argparse.Namespace
) -> str:
    """Returns the folder of a seed, or of a source of the ensemble of all seeds."""
    name = f"seed{one}"
    if isinstance(one, str):
        name = f"seeds{'+'.join(map(str, options.seeds))}_{one}"
    folder = f"{options.runs}/{model}_{name}"
    return folder if fold is None else f"{folder}_fold{fold}"


def _root(options: argparse.Namespace) -> str:
    return options.data_root or f"{options.runs}/synthetic"


STAGES = {"setup": setup_commands, "runs": run_commands, "compare": compare_commands}


def commands(options: argparse.Namespace) -> list[str]:
    """Returns the lines of the stage asked for, quoted for a shell."""
    wanted = STAGES if options.stage == "all" else (options.stage,)
    return [shlex.join(line) for stage in wanted for line in STAGES[stage](options)]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="launch/commands.py")
    parser.add_argument("data_root", nargs="?", default="", metavar="DATA_ROOT")
    parser.add_argument("--organ", choices=STUDIES, default="liver")
    parser.add_argument(
        "--livers", default="", help="folder of real liver masks (synthetic cohort)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--runs", default="", help="default runs/ORGAN or runs/synthetic"
    )
    parser.add_argument("--output", default="", help="default results/ and that name")
    parser.add_argument("--python", default="python")
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    options = parser.parse_args(argv)
    if options.organ != "liver" and not options.data_root:
        parser.error(f"the synthetic cohort has no {options.organ}; give DATA_ROOT")
    if options.livers and options.data_root:
        parser.error("--livers shapes the synthetic cohort; leave DATA_ROOT out")
    name = options.organ if options.data_root else "synthetic"
    options.runs = options.runs or f"runs/{name}"
    options.output = options.output or f"results/{name}"
    return options


if __name__ == "__main__":
    print("\n".join(commands(parse())))
