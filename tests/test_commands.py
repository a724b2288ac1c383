import ast
import importlib
import shlex

import pytest

from configs import hippocampus
from launch import commands
from unc_jax.check_config import check_config


def lines_of(*arguments):
    return [shlex.split(line) for line in commands.commands(commands.parse(arguments))]


def fields_of(line):
    flags = [word.removeprefix("--config.") for word in line if "--config." in word]
    return dict(flag.split("=", 1) for flag in flags)


def test_the_order_is_setup_runs_compare():
    lines = lines_of("/data/My Set", "--seeds", "0", "1", "--python", "py")
    modules = [line[2] for line in lines]
    assert modules == [*["unc_jax.main"] * (2 + 12 + 12), "unc_jax.compare"]
    runs, ensembles = lines[2:14], lines[14:-1]
    workdirs = [line[line.index("--workdir") + 1] for line in runs]
    assert len(set(workdirs)) == 12
    both = [line[line.index("--workdir") + 1] for line in ensembles]
    assert sorted(lines[-1][3:-2]) == sorted([*workdirs, *both])
    # The split does not depend on the seed; nothing but the paths is changed.
    assert {fields_of(line)["seed"] for line in runs} == {"0", "1"}
    assert {fields_of(line)["data.root"] for line in runs} == {"/data/My Set"}
    assert {len(fields_of(line)) for line in runs} == {3}
    assert lines[0][:3] == ["py", "-m", "unc_jax.main"]


def test_stages_make_up_the_whole():
    parts = [lines_of("--stage", stage) for stage in ("setup", "runs", "compare")]
    assert [line for part in parts for line in part] == lines_of()
    assert parts[0][0][2] == "unc_jax.data.phantom"
    assert len(parts[1]) == 6


def test_ensembles_are_of_the_seeds_of_a_model_and_a_fold():
    options = ("/data", "--organ", "liver_mr", "--seeds", "0", "2", "5")
    runs = lines_of(*options, "--stage", "runs")
    trained = {line[line.index("--workdir") + 1] for line in runs}
    *ensembles, _, _, _ = lines_of(*options, "--stage", "compare")
    assert len(ensembles) == 6 * 5 * 2
    own = set()
    for line in ensembles:
        fields, place = fields_of(line), line[line.index("--workdir") + 1]
        model, _, rest = place.partition("_seeds0+2+5_")
        source, fold = rest.split("_fold")
        assert (fields["evaluate.source"], fields["data.fold"]) == (source, fold)
        members = ast.literal_eval(fields["evaluate.members"])
        assert members == tuple(f"{model}_seed{seed}_fold{fold}" for seed in (0, 2, 5))
        assert trained > set(members)
        assert line[-2:] == ["--stage", "evaluate"]
        own.add((model, source, fold))
    assert len(own) == len(ensembles)
    assert len(lines_of("/data", "--organ", "liver_mr", "--stage", "compare")) == 3


@pytest.mark.parametrize(
    "options",
    [
        *(["/data"], [], ["/data", "--organ", "hippocampus"]),
        *(["--seeds", "0", "1"], ["/data", "--organ", "liver_mr", "--seeds", "0", "1"]),
    ],
)
def test_every_run_is_a_valid_config(options):
    for line in (one for one in lines_of(*options) if one[2] == "unc_jax.main"):
        path, _, variant = line[line.index("--config") + 1].partition(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        config = module.get_config(*filter(None, [variant]))
        for name, text in fields_of(line).items():
            old = config
            *parents, last = name.split(".")
            for parent in parents:
                old = old[parent]
            old[last] = text if isinstance(old[last], str) else ast.literal_eval(text)
        check_config(config)


def test_synthetic_patches_keep_the_papers_proportions():
    large, small = (
        ast.literal_eval(commands.SYNTHETIC_PATCH[size]["train.patch_shape"])
        for size in ("large", "small")
    )
    shape = ast.literal_eval(commands.SYNTHETIC_TARGET["liver"]["data.shape"])
    assert [2 * n for n in large[:2]] == [4 * n for n in small[:2]] == list(shape[:2])


def test_livers_shape_the_synthetic_cohort_only(capsys):
    drawing = lines_of("--livers", "/data/liver masks")[0]
    assert drawing[drawing.index("--livers") + 1] == "/data/liver masks"
    assert "--livers" not in lines_of()[0]
    with pytest.raises(SystemExit):
        lines_of("/data/set", "--livers", "/data/liver masks")
    assert "leave DATA_ROOT out" in capsys.readouterr().err


def test_hippocampus_has_two_preparations_and_six_models():
    lines = lines_of("/data", "--organ", "hippocampus", "--seeds", "0", "1", "2")
    assert [line[2] for line in lines].count("unc_jax.main") == 2 + 18 + 12
    prepared = [line for line in lines if line[-2:] == ["--stage", "prepare"]]
    chosen = [line[line.index("--config") + 1] for line in prepared]
    assert [one.split(":")[1].split("_")[0] for one in chosen] == ["whole", "part"]
    with pytest.raises(SystemExit):
        commands.parse(["--organ", "hippocampus"])


def test_liver_mr_is_trained_once_per_fold_and_compared_by_target():
    lines = lines_of("/data", "--organ", "liver_mr", "--seeds", "0", "1")
    runs = lines[15:75]
    assert all(line[-2:] == ["--stage", "prepare"] for line in lines[:15])
    assert len(runs) == 2 * 6 * 5
    places = {}
    for line in runs:
        fields = fields_of(line)
        place = line[line.index("--workdir") + 1]
        places[place] = (fields["data.fold"], fields["seed"])
        assert place.endswith(f"_seed{fields['seed']}_fold{fields['data.fold']}")
    assert len(places) == len(runs)
    assert {fold for fold, _ in places.values()} == set("01234")
    compared = [set(line[3:-2]) for line in lines[-3:]]
    assert [len(one) for one in compared] == [40, 40, 40]  # half of them ensembles
    assert set.union(*compared) > set(places)
    outputs = [line[-1] for line in lines[-3:]]
    assert outputs == [f"results/liver_mr/{t}" for t in ("liver", "spleen", "kidneys")]


def test_hippocampus_patches_are_half_and_a_quarter_of_the_plane():
    for size, share in (("large", 1 / 2), ("small", 1 / 4)):
        config = hippocampus.get_config(f"whole_dice_{size}")
        for side, whole in zip(
            config.train.patch_shape[:2], config.data.shape, strict=False
        ):
            assert abs(side - share * whole) <= 2  # multiples of 4
