import csv
import json
import zlib

import numpy as np
import pytest
from folders import contents
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

from unc_jax import compare
from unc_jax.errors import InputError
from unc_jax.study import (
    appraisal,
    cases_table,
    charts,
    comparison,
    figures,
    grouping,
    paper_tables,
    run_folder,
    tables,
)
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.panels import Panel, write_panel
from unc_jax.uncertainty.measures import MEASURES

COUNTS = {"train": 12, "validation": 4, "test": 16}
CONFIG = {
    "seed": 0,
    "data.target": "liver",
    "data.root": "/data/Task03_Liver",
    "loss.name": "dice",
    "train.patch_shape": [8, 8, 4],
    "evaluate.chunk": 1,
}


def write_run(folder, *, noise=1.0, seed=0, panels=False, rows=None, **fields):
    """A made-up run whose measures follow Dice up to `noise`."""
    config = {**CONFIG, "seed": seed, **fields}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng([seed, zlib.crc32(folder.name.encode())])
    made = []
    for split, count in COUNTS.items():
        for i in range(count):
            bad = i / count + noise * 0.1 * rng.normal()
            made.append(
                cases_table.new_row(EVALUATION_COLUMNS, 
                    case=f"{split}_{i}", split=split, n_samples=10, status="ok",
                    dice=0.95 - 0.5 * i / count, cv=10 + 5 * bad, d_pw=0.6 - 0.1 * bad,
                    u_labelled=0.1 + 0.05 * bad, volume_ml=10.0 + i % 5,
                    reference_ml=11.0 + i % 7, cv_roy=1 + bad, mutual_information=bad,
                    d_pw_half1=bad, d_pw_half2=bad + 0.05 * (i % 3),
                )
            )  # fmt: skip
    made = rows(made) if rows else made
    cases_table.write_rows(folder / "cases.csv", made, EVALUATION_COLUMNS)
    if panels:
        mask = np.zeros((6, 8), bool)
        mask[2:4, 2:5] = True
        panel = Panel(
            np.arange(48, dtype=np.float16).reshape(6, 8),
            mask,
            np.roll(mask, 1, axis=0),
            np.full((6, 8), 0.1, np.float16),
            np.ones(2),
            0,
        )
        for row in made:
            write_panel(folder / "panels" / f"{row['case']}.npz", panel)
    return folder


def write_six(root, **options):
    folders = []
    for target, loss, patch in [
        ("liver", "dice", [8, 8, 4]),
        ("liver", "dice", [4, 4, 4]),
        ("liver", "wcc", [8, 8, 4]),
        ("liver", "wcc", [4, 4, 4]),
        ("tumor", "dice", [8, 8, 4]),
        ("tumor", "wcc", [8, 8, 4]),
    ]:
        fields = {"data.target": target, "loss.name": loss, "train.patch_shape": patch}
        name = f"{target}_{loss}_{patch[0]}"
        noise = 0.2 if loss == "wcc" else 6.0
        folders.append(write_run(root / name, noise=noise, **fields, **options))
    return folders


def grouped(*folders):
    return grouping.group([run_folder.open_run(folder) for folder in folders])


def command(*arguments):
    """Exit code of the command."""
    with pytest.raises(SystemExit) as stopped:
        compare.main([str(one) for one in arguments])
    return stopped.value.code


def markdown_of(statistics, target="liver"):
    return tables.markdown([paper_tables.paper_table(statistics, target)])


def rows_of(models):
    """What Figure 2 is drawn from."""
    return {
        charts.title_of(one.name, [run.seed for run in one.runs]): one.runs[0].rows
        for one in models
    }


FAST = 200


def test_writes_everything(tmp_path, capsys):
    folders = write_six(tmp_path, panels=True)[::2]  # liver dice, liver wcc, tumor dice
    output = tmp_path / "results"
    arguments = [*folders, "--output", output, "--resamples", "1000"]
    assert command(*arguments) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "claims.md", "figure1.png", "figure2.png", "measures.md", "quality.md",
        "referral.png", "report.html", "runs", "statistics.json", "table1.csv",
        "table1.md", "table2.csv", "table2.md",
    ]  # fmt: skip
    found = json.loads((output / "statistics.json").read_text())
    verdicts = {one["claim"]: one["verdict"] for one in found["claims"]}
    assert verdicts["Table 1, wcc > soft Dice"] == "supported"
    assert "wcc > soft Dice: supported" in capsys.readouterr().out
    page = (output / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert "wcc &gt; soft Dice: supported" in page
    assert page.count("<table>") == 4
    # Another comparison without tumour models leaves no Table 2 of this one.
    assert command(folders[0], *arguments[3:]) == 0
    assert not (output / "table2.md").exists()


def test_measures_as_rankings_say_what_the_statistics_say(tmp_path):
    found = comparison.compare(grouped(*write_six(tmp_path)), resamples=FAST)
    lines = tables.markdown([appraisal.measures_table(found)]).splitlines()[4:]
    assert len(lines) == 6 * len(MEASURES)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    first, own = found["models"][0], cells[1]
    assert own[:2] == [first["name"], "d_pw"]
    one = first["measures"]["d_pw"]
    assert own[2] == str(one["n"][0])
    assert own[3] == f"{one['augrc']['mean']:.4f}"
    assert own[4] == f"{one['aurc']['mean']:.4f}"
    assert own[6] == f"{one['rho']['mean']:.2f}"
    known = one["reliability"]
    assert own[8] == f"{known['value']:.2f} ({known['ci95'][0]:.2f} to " + (
        f"{known['ci95'][1]:.2f})"
    )
    assert own[10] == f"{one['rho_given_reference_volume']['mean']:.2f}"
    above, failed = one["rho_above_dice"]["0.7"], one["failure_auroc"]["0.8"]
    assert own[11] == f"{above['mean']:.2f} ({above['n'][0]})"
    assert own[12] == f"{failed['mean']:.2f} ({failed['failures'][0]})"
    undefined = cells[list(MEASURES).index("u_labelled_binary")]
    assert own[9] == tables.UNDEFINED  # one seed each
    assert undefined[3] == undefined[6] == tables.UNDEFINED
    assert undefined[8] == ""


def test_few_failures_have_no_auroc():
    four = {"mean": 0.9, "failures": [4, 7], "others": [40, 40]}
    assert appraisal.failures_cell(four) == "too few (4, 7)"
    five = {"mean": 0.9, "failures": [5, 7], "others": [40, 5]}
    assert appraisal.failures_cell(five) == "0.90 (5, 7)"
    rest = {"mean": 0.9, "failures": [50, 48], "others": [3, 5]}
    assert appraisal.failures_cell(rest) == "too few others (3, 5)"


def test_trainings_that_order_cases_alike_agree(tmp_path):
    folders = [
        write_run(tmp_path / f"run{seed}", noise=3.0, seed=seed) for seed in (0, 1, 2)
    ]
    found = comparison.compare(grouped(*folders), resamples=FAST)
    model = found["models"][0]
    assert model["dice"]["test"]["rho_between_seeds"] == pytest.approx(1)
    cv = [
        cases_table.column(run.rows, "cv", "test") for run in grouped(*folders)[0].runs
    ]
    pairs = [stats.spearmanr(cv[a], cv[b])[0] for a, b in ((0, 1), (0, 2), (1, 2))]
    own = model["measures"]["cv"]["rho_between_seeds"]
    assert own == pytest.approx(np.mean(pairs))
    assert own < 0.95
    last = tables.markdown([appraisal.measures_table(found)]).splitlines()[-1]
    assert last.startswith(f"| {model['name']} | (Dice) |  |  |  |  |  |  |  | 1.00 |")


def test_what_was_compared_is_kept_and_gives_the_same_again(tmp_path):
    folders = write_six(tmp_path)[:3:2]  # drawing six takes seconds
    first, second = tmp_path / "first", tmp_path / "second"

    def statistics(folders, output):
        flags = ["--output", output, "--resamples", "1000"]
        assert command(*folders, *flags) == 0
        return json.loads((output / "statistics.json").read_text())["claims"]

    found = statistics(folders, first)
    assert found
    kept = sorted((first / "runs").iterdir())
    assert [folder.name for folder in kept] == sorted(f.name for f in folders)
    for folder in folders:
        for name in ("config.json", "cases.csv"):
            copied = first / "runs" / folder.name / name
            assert copied.read_bytes() == (folder / name).read_bytes()
    assert statistics(kept, second) == found
    assert statistics(kept, first) == found  # in place


def test_copies_of_runs_of_one_name_are_all_kept(tmp_path):
    """As folds or sweeps lay them out; then again from the copies, and in place."""
    names = ("a/fold_0", "b/fold_0", "c/Fold_0")
    folders = [write_run(tmp_path / n, seed=s) for s, n in enumerate(names)]
    (folders[0] / "metrics.jsonl").write_text("{}")
    output = tmp_path / "out"
    flags = ["--output", output, "--resamples", "1000"]
    assert command(*folders, *flags) == 0
    kept = sorted(output.glob("runs/*"))
    assert len(kept) == 3
    assert len({folder.name.casefold() for folder in kept}) == 3

    def configs(folders):
        return sorted((folder / "config.json").read_text() for folder in folders)

    assert configs(kept) == configs(folders)
    copies = [one for one in kept if one.name.startswith("f")]
    assert command(*copies, folders[2], *flags) == 0  # copies stay what they are
    assert configs(output.glob("runs/*")) == configs(folders)
    # What another run has not is not left of the one before it.
    (folders[0] / "metrics.jsonl").unlink()
    assert command(*folders, *flags) == 0
    assert not list(output.glob("runs/*/metrics.jsonl"))


def test_a_link_is_not_copied(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    (tmp_path / "private.json").write_text("{}")
    (folder / "voxels.json").symlink_to(tmp_path / "private.json")
    assert command(folder, "--output", tmp_path / "out") == 2
    assert f"{folder / 'voxels.json'} is a link" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_statistics_are_those_of_the_rows(tmp_path):
    folder = write_run(tmp_path / "run", noise=3.0)
    rows = cases_table.read_rows(folder / "cases.csv", EVALUATION_COLUMNS)
    dice = cases_table.column(rows, "dice", "test")
    found = comparison.compare(grouped(folder), resamples=FAST)["models"][0]
    for name in ("cv", "d_pw", "mutual_information"):
        values = cases_table.column(rows, name, "test")
        expected = stats.spearmanr(values, dice)
        one = found["measures"][name]
        assert one["rho"]["mean"] == pytest.approx(expected.statistic)
        assert one["p"] == pytest.approx(expected.pvalue)
        assert one["n"] == [16]
        assert one["ci95"][0] < one["rho"]["mean"] < one["ci95"][1]
    assert found["measures"]["predictive_entropy"]["rho"]["mean"] is None
    assert found["dice"]["test"]["mean"] == pytest.approx(dice.mean())
    assert found["dice"]["train"]["n"] == [12]


def test_intervals_of_a_run_are_those_of_its_summary(tmp_path):
    run = run_folder.open_run(write_run(tmp_path / "run", noise=3.0))
    summary = appraisal.summarise(run.rows)["test"]
    found = comparison.compare(grouping.group([run]))["models"][0]
    assert found["dice"]["test"]["ci95"] == summary["dice"]["ci95"]
    intervals = {name: one["ci95"] for name, one in found["measures"].items()}
    expected = {name: one["ci95"] for name, one in summary["measures"].items()}
    assert intervals == expected
    assert intervals["d_pw"][0] < intervals["d_pw"][1]


def test_seeds_of_one_config_are_one_model(tmp_path):
    folders = [
        write_run(tmp_path / f"run{seed}", noise=3.0, seed=seed, **fields)
        for seed, fields in (
            (2, {"train.rematerialise": True}),
            (0, {"evaluate.chunk": 10}),
            (1, {"train.checkpoints": "gs://bucket"}),
        )
    ]
    other = write_run(tmp_path / "other", **{"loss.name": "wcc"})
    found = grouped(*folders, other)
    assert [[run.seed for run in model.runs] for model in found] == [[0, 1, 2], [0]]
    described = comparison.compare(found, resamples=FAST)["models"][0]
    rho = described["measures"]["cv"]["rho"]
    assert rho["mean"] == pytest.approx(np.mean(rho["by_seed"]))
    assert rho["sd"] == pytest.approx(np.std(rho["by_seed"], ddof=1))
    assert described["measures"]["cv"]["value"] == pytest.approx(rho["mean"])
    table = markdown_of(comparison.compare(found, resamples=FAST))
    assert "| 0, 1, 2 | 16 |" in table
    assert f"{rho['mean']:.2f} ± {rho['sd']:.2f}" in table.replace("*", "")


def test_copies_of_one_training_are_no_two_seeds(tmp_path):
    folders = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    digests = [["a" * 64], ["b" * 64]]
    for folder, found in zip(folders, digests, strict=True):
        (folder / "evaluation.json").write_text(json.dumps({"checkpoints": found}))
    assert len(grouped(*folders)) == 1
    (folders[1] / "evaluation.json").write_text(json.dumps({"checkpoints": digests[0]}))
    with pytest.raises(InputError, match=r"run0 and .*run1 have the same weights"):
        grouped(*folders)


def test_models_that_differ_otherwise_say_how(tmp_path):
    one = write_run(tmp_path / "one", **{"model.dropout_rate": 0.1})
    two = write_run(tmp_path / "two", **{"model.dropout_rate": 0.5})
    names = [model.name for model in grouped(one, two)]
    assert names == [
        "liver large dice model.dropout_rate=0.1",
        "liver large dice model.dropout_rate=0.5",
    ]


@pytest.mark.parametrize(
    ("root", "labels", "name"),
    [
        ("Task03_Liver", [], "liver"),
        ("Task03_Liver", [1, 2], "liver"),  # what the names of its labels give
        ("Liver_MR", [4], "whole"),  # the spleen
        ("Task04_Hippocampus", [], "whole"),
    ],
)
def test_a_target_is_named_by_its_data_and_labels(tmp_path, root, labels, name):
    fields = {"data.root": f"/data/{root}", "data.liver_labels": labels}
    (model,) = grouped(write_run(tmp_path / "run", **fields))
    assert model.name == f"{name} large dice"


@pytest.mark.parametrize(
    ("patches", "sizes"),
    [
        ([[64, 64, 16]], ["small"]),
        ([[128, 128, 16]], ["large"]),
        ([[64, 64, 16], [32, 32, 16]], ["large", "small"]),
        ([[64, 64, 16], [8, 8, 8], [32, 32, 16]], ["32x32x16", "large", "small"]),
    ],
)
def test_large_and_small_patches(tmp_path, patches, sizes):
    folders = [
        write_run(
            tmp_path / str(i),
            **{"train.patch_shape": patch, "data.shape": [256, 256, 256]},
        )
        for i, patch in enumerate(patches)
    ]
    assert sorted(model.size for model in grouped(*folders)) == sizes


def test_tables_have_the_papers_rows(tmp_path):
    folders = write_six(tmp_path)
    found = comparison.compare(grouped(*folders), resamples=FAST)
    lines = markdown_of(found).splitlines()
    body = [line for line in lines if line.startswith("|")][2:]
    assert [line.split(" | ")[:3:2] for line in body] == [
        [f"| {loss}", source]
        for loss in ("dice", "dice", "wcc", "wcc")
        for source in ("measured", "paper")
    ]
    # The paper's own bold figures.
    paper = [line for line in body if "paper" in line]
    assert "**0.94** (0.96) | **-0.77** (5.4e-12) | **0.89**" in paper[2]
    assert "**-0.73** (2.1e-10)" in paper[3]
    assert sum(line.count("**") for line in paper) == 8
    # All made-up models have one Dice, so all four are best.
    assert sum("**0.72**" in line for line in body) == 4
    with_one = comparison.compare(grouped(folders[0]), resamples=FAST)
    assert markdown_of(with_one).count("not run") == 3
    rows = list(csv.DictReader(paper_tables.csv_text(found, "tumor").splitlines()))
    assert [row["paper_cv_rho"] for row in rows] == ["-0.58", "-0.73"]
    assert (
        float(rows[0]["cv_rho"]) == found["models"][4]["measures"]["cv"]["rho"]["mean"]
    )
    found["models"][4]["name"] = "=cmd()"  # a folder may be called anything
    text = paper_tables.csv_text(found, "tumor")
    assert text.splitlines()[1].startswith("'=cmd(),")


def emptied(rows):
    """One test case with an empty prediction, one with both masks empty, one failed."""
    test = [row for row in rows if row["split"] == "test"]
    test[0] |= {"volume_ml": 0.0, "dice": 0.0, "u_labelled": None}
    both = {"volume_ml": 0.0, "reference_ml": 0.0, "dice": None, "u_labelled": None}
    test[1] |= both
    test[2] |= dict.fromkeys(MEASURES) | {
        "dice": None,
        "status": "failed: x",
    }
    return rows


@pytest.mark.parametrize(("policy", "n"), [("exclude", [14, 13]), ("zero", [15, 15])])
def test_empty_cases(tmp_path, policy, n):
    folder = write_run(tmp_path / "run", rows=emptied)
    found = comparison.compare(grouped(folder), policy=policy, resamples=FAST)
    measures = found["models"][0]["measures"]
    assert [measures["cv"]["n"][0], measures["u_labelled"]["n"][0]] == n
    effect = found["empty_cases"][0]
    counts = ("empty_prediction", "empty_reference", "both_empty")
    assert [effect[name] for name in counts] == [2, 1, 1]
    assert [effect[p]["n"] for p in ("exclude", "zero")] == [14, 15]
    table = markdown_of(found)
    assert "empty prediction 2, reference 1, both 1" in table


def as_train(rows):
    rows[-1]["split"] = "train"
    return rows


def resized(rows):
    rows[5]["reference_ml"] = 99.0
    return rows


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[:-1], "32 and 31 cases, test_15 in one only"),
        (as_train, "test_15 is a test case of one and a train case of the other"),
        (resized, "the reference of train_5 has 16 ml in one and 99 ml"),
    ],
)
def test_mixed_cohorts_are_refused(tmp_path, capsys, change, reason):
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", rows=change, **{"loss.name": "wcc"})
    assert command(one, two, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert reason in error
    assert not (tmp_path / "out").exists()


def test_fingerprints_of_cohorts_are_compared_where_recorded(tmp_path):
    folders = [write_run(tmp_path / "one"), write_run(tmp_path / "two", seed=1)]
    (folders[0] / "evaluation.json").write_text('{"cohort": "aaaa"}')
    grouped(*folders)
    (folders[1] / "evaluation.json").write_text('{"cohort": "bbbb"}')
    with pytest.raises(ValueError, match="fingerprints aaaa and bbbb"):
        grouped(*folders)


def test_runs_of_other_grids_are_compared(tmp_path):
    fields = {"train.patch_shape": [32, 32, 16], "data.shape": [64, 64, 48]}
    coarse = write_run(tmp_path / "coarse", **fields)
    (coarse / "evaluation.json").write_text('{"cohort": "aaaa"}')
    fields = {"train.patch_shape": [48, 48, 20], "data.shape": [96, 96, 64]}

    def resampled(factor):
        def rows(rows):
            return [
                {**row, "reference_ml": factor * row["reference_ml"]} for row in rows
            ]

        folder = write_run(tmp_path / f"fine{factor}", rows=rows, **fields)
        (folder / "evaluation.json").write_text('{"cohort": "bbbb"}')
        return folder

    models = grouped(coarse, resampled(1.05))
    assert [model.size for model in models] == ["large", "large"]
    shapes = [model.settings["data.shape"] for model in models]
    assert sorted(shapes) == [[64, 64, 48], [96, 96, 64]]
    with pytest.raises(ValueError, match="the reference of train_0 has 11 ml in"):
        grouped(coarse, resampled(1.4))


def without_measures(rows):
    return [{**row, "cv": None, "d_pw": None, "u_labelled": None} for row in rows]


def test_bad_runs_are_one_line_each(tmp_path, capsys):
    good = write_run(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    columns = write_run(tmp_path / "columns")
    (columns / "cases.csv").write_text("case,split\na,test\n")
    binary = write_run(tmp_path / "binary")
    (binary / "cases.csv").write_bytes(b"\xff\xfe\x00")
    config = write_run(tmp_path / "config")
    (config / "config.json").write_text("{")
    fields = write_run(tmp_path / "fields")
    (fields / "config.json").write_text('{"seed": 0}')
    write_run(tmp_path / "patch", **{"train.patch_shape": []})
    write_run(tmp_path / "target", **{"data.target": "spleen"})
    write_run(tmp_path / "undefined", rows=without_measures)
    write_run(tmp_path / "untested", rows=lambda rows: rows[:-14])
    write_run(tmp_path / "twice", rows=lambda rows: [*rows, rows[0]])
    reasons = {
        "absent": "no such run folder",
        "empty": "has no cases.csv; evaluate it first",
        "columns": "no column",
        "binary": "cannot be read",
        "config": "config.json: cannot be read",
        "fields": "has no data.target, loss.name, train.patch_shape",
        "patch": "train.patch_shape is [], seed 0; they must be three",
        "target": "data.target is 'spleen', not one of liver, tumor",
        "undefined": "cv, d_pw, u_labelled are undefined in every test case",
        "untested": "2 of 2 test cases have a Dice; a rank correlation needs 3",
        "twice": "case train_0 has several rows",
        "good": "are one config with one seed (0)",
    }
    for name, reason in reasons.items():
        assert command(good, tmp_path / name, "--output", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert reason in error
        assert name in error


def test_bad_flags_and_files_are_one_line_each(tmp_path, capsys):
    good = write_run(tmp_path / "good", panels=True)
    file = tmp_path / "file"
    file.write_text("in the way")
    output = ["--output", tmp_path / "out"]
    assert command(good, *output, "--resamples", "10") == 2
    assert "--resamples is 10; give at least 1000" in capsys.readouterr().err
    assert command(good, *output, "--seed", "-1") == 2
    assert "--seed is -1" in capsys.readouterr().err
    assert command(good, "--output", file, "--resamples", "1000") == 2
    assert str(file) in capsys.readouterr().err
    (good / "panels" / "test_0.npz").write_text("half of a slice")
    assert command(good, *output, "--resamples", "1000") == 2
    error = capsys.readouterr().err
    assert "test_0.npz: is no slice of a case" in error
    assert error.count("\n") == 1


def test_figure1_shows_best_median_and_worst_of_each_target(tmp_path):
    found = grouped(*write_six(tmp_path, panels=True))
    drawn = figures.figure1_of_models(found)
    first = [ax.get_title().replace("\n", "") for ax in drawn.axes[:27:9]]
    assert first == ["test_0", "test_8", "test_15"]
    axes = [ax for ax in drawn.axes if ax.images and ax.get_label() != "<colorbar>"]
    # Three liver cases: image and 4 x (mask, map); three tumour cases: 1 + 2 x 2.
    assert len(axes) == 3 * 9 + 3 * 5
    maps = [ax.images[0] for ax in axes if ax.images[0].get_array().ndim == 2]
    assert len(maps) == 3 * 4 + 3 * 2
    assert len({image.get_clim() for image in maps}) == 1


def test_figure1_is_left_out_without_slices(tmp_path):
    old = tmp_path / "figure1.png"
    old.write_text("of an earlier comparison")
    drawn = figures.figure1_of_models(grouped(write_run(tmp_path / "run")))
    assert drawn is None
    assert not figures.save(drawn, old)
    assert not old.exists()


def test_figure2_and_referral_hold_the_points(tmp_path):
    found = grouped(*write_six(tmp_path))
    drawn = charts.figure2(rows_of(found))
    assert len(drawn.axes) == 6 * 3
    ax = drawn.axes[3 + 1]  # second model, D_pw
    rows = found[1].runs[0].rows
    points = ax.collections[2].get_offsets()
    assert np.allclose(points[:, 0], cases_table.column(rows, "d_pw", "test"))
    assert np.allclose(points[:, 1], cases_table.column(rows, "dice", "test"))
    assert "n = 16" in ax.get_title()
    statistics = comparison.compare(found, resamples=FAST)
    lines = charts.referral_figure(statistics).axes[0].lines
    assert len(lines) == 5  # three measures, oracle, random
    for line in lines:  # all start at the mean of all, drawn while 5 of 16 are kept
        assert len(line.get_xdata()) == 12
        assert line.get_ydata()[0] == pytest.approx(lines[4].get_ydata()[0])


def test_titles_name_the_seed_and_break_long_variants(tmp_path):
    fields = {"model.dropout_placement": "bottleneck", "evaluate.mask_scope": "window"}
    found = grouped(
        write_run(tmp_path / "one", seed=0),
        write_run(tmp_path / "two", seed=3),
        write_run(tmp_path / "other", **fields),
    )
    labels = [ax.get_ylabel() for ax in charts.figure2(rows_of(found)).axes[::3]]
    statistics = comparison.compare(found, resamples=FAST)
    referral = charts.referral_figure(statistics)
    for texts in (labels, [ax.get_title() for ax in referral.axes[:2]]):
        joined = [" ".join(text.split()) for text in texts]
        assert sum("(seed 0)" in text for text in joined) == 1
        assert any("bottleneck" in text for text in joined)
        assert max(len(line) for text in texts for line in text.splitlines()) <= 60


@pytest.mark.parametrize("count", [1, 2, 4])
def test_legends_are_whole_however_few_the_models(tmp_path, count):
    losses = [{"loss.name": "dice"}, {"loss.name": "wcc"}]
    folders = [
        write_run(tmp_path / f"run{i}", **losses[i % 2], **{"train.steps": i // 2})
        for i in range(count)
    ]
    found = comparison.compare(grouped(*folders), resamples=FAST)
    figure = charts.referral_figure(found)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_another_setting_of_one_loss_erases_no_claim(tmp_path):
    """The base models of both losses still have the same settings."""
    folders = [
        write_run(tmp_path / name, noise=noise, **{"loss.name": name})
        for name, noise in (("dice", 6.0), ("wcc", 0.2))
    ]
    other = {"loss.name": "wcc", "model.dropout_rate": 0.5}
    folders.append(write_run(tmp_path / "other", noise=0.2, **other))
    for given in (folders[:2], folders):
        found = comparison.compare(grouped(*given), resamples=FAST)
        verdicts = {one["claim"]: one["verdict"] for one in found["claims"]}
        assert verdicts["Table 1, wcc > soft Dice"] != "not tested"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quality.md", "this command did not write it"),
        ("report.html", "this command did not write it"),
        ("figure1.png", "this command did not write it"),  # a link to nothing
        ("output.json", "holds the cases of another command"),
    ],
)
def test_files_that_no_comparison_wrote_are_kept(tmp_path, capsys, name, said):
    run, output = write_run(tmp_path / "run"), tmp_path / "out"
    output.mkdir()
    if name == "figure1.png":
        (output / name).symlink_to(tmp_path / "elsewhere")
    else:
        (output / name).write_text('{"files": {}}')
    (output / "runs").mkdir()  # as in the folder where one trains
    before = contents(tmp_path)
    flags = [run, "--output", output, "--resamples", "1000"]
    assert command(*flags) == 2
    assert said in capsys.readouterr().err
    assert contents(tmp_path) == before
    (output / name).unlink()
    assert command(*flags) == 0
    assert command(*flags) == 0  # its own are replaced
    (output / "statistics.json").rename(output / compare._BEGUN)  # as if killed
    assert command(*flags) == 0
    written = {path.name for path in output.iterdir()} - {"runs", "statistics.json"}
    assert written <= {*compare._WRITTEN}  # else the check would miss one


def test_a_run_in_the_output_is_not_overwritten(tmp_path, capsys):
    given = write_run(tmp_path / "backup" / "demo")
    there = write_run(tmp_path / "runs" / "demo", seed=1)
    (there / "checkpoints").mkdir()
    (tmp_path / "statistics.json").write_text("{}")  # of an earlier comparison
    before = contents(tmp_path)
    flags = ["--output", tmp_path, "--resamples", "1000"]
    assert command(given, *flags) == 2
    assert "demo holds checkpoints and would be overwritten" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_an_archived_run_in_the_output_is_not_overwritten(tmp_path, capsys):
    """It has no more files than a copy has, but no comparison copied it."""
    given, output = write_run(tmp_path / "new" / "demo"), tmp_path / "study"
    there = write_run(output / "runs" / "demo", seed=1)
    (there / "voxels.json").write_text("{}")
    before = contents(tmp_path)
    flags = ["--output", output, "--resamples", "1000"]
    assert command(given, *flags) == 2
    said = capsys.readouterr().err
    assert f"{there} holds cases.csv and would be overwritten" in said
    assert "name another --output" in said
    assert said.count("\n") == 1
    assert contents(tmp_path) == before


def test_copies_of_an_earlier_comparison_are_replaced(tmp_path):
    given, output = write_run(tmp_path / "new" / "demo"), tmp_path / "study"
    flags = ["--output", output, "--resamples", "1000"]
    for text in ("{}", "{ }", "{  }"):
        (given / "metrics.jsonl").write_text(text)
        assert command(given, *flags) == 0
        assert contents(output / "runs" / "demo") == contents(given)
        if text == "{ }":  # as if killed
            (output / "statistics.json").rename(output / compare._BEGUN)


def test_an_output_is_of_one_comparison(tmp_path, capsys):
    good, bad = (write_run(tmp_path / name, panels=True) for name in ("a", "b"))
    flags = ["--output", tmp_path / "out", "--resamples", "1000"]
    assert command(good, *flags) == 0
    before = contents(tmp_path / "out")
    (bad / "metrics.jsonl").write_bytes(b"\xff\xfe")
    assert command(bad, *flags) == 2
    assert "metrics.jsonl: is no text in UTF-8" in capsys.readouterr().err
    (bad / "metrics.jsonl").unlink()
    (bad / "panels" / "test_0.npz").write_text("half of a slice")
    assert command(bad, *flags) == 2
    assert contents(tmp_path / "out") == before
