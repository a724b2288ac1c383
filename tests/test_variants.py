import json

import numpy as np
import pytest
from folders import contents
from scipy import stats

from unc_jax import preparation, sensitivity, stages
from unc_jax.config import flat_config
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study import cases_table, run_folder, tables, variant_figures, variants
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.variants import Variant


def rows_of(dice, **measures):
    listed = []
    for i, value in enumerate(dice):
        own = {name: float(values[i]) for name, values in measures.items()}
        row = cases_table.new_row(EVALUATION_COLUMNS, 
            case=f"c{i}", split="test", n_samples=10, dice=float(value), seconds=2.0,
            status="ok", **own,
        )  # fmt: skip
        listed.append(row)
    return listed


def test_one_thing_changes_at_a_time(tiny_config):
    config = flat_config(tiny_config)
    listed = variants.variants(config)
    assert listed[0] == Variant("as evaluated", "", {})
    for one in listed[1:]:
        assert len(one.fields) == 1 or one.group == "window"
        assert any(config[field] != value for field, value in one.fields.items())
        sensitivity.with_fields(tiny_config, one.fields)  # a valid config each
    assert len({one.folder for one in listed}) == len(listed)
    assert {one.name for one in listed if one.group == "overlap"} == {"0.0", "0.5"}
    assert not any(one.name.startswith("ensemble") for one in listed)
    last = variants.variants(config, ["a", "b"])[-1]
    assert last.fields["evaluate.members"] == ("a", "b")


@pytest.mark.parametrize(
    ("source", "groups"),
    [
        ("dropout", {"mask scope", "samples N", "overlap", "window"}),
        ("ensemble", {"overlap", "window"}),
    ],
)
def test_an_ensemble_has_the_choices_of_its_evaluation(tiny_config, source, groups):
    own = {"evaluate.members": ("a", "b"), "evaluate.source": source}
    config = sensitivity.with_fields(tiny_config, own)
    listed = variants.variants(flat_config(config))
    assert {one.group for one in listed[1:]} == groups
    for one in listed[1:]:
        sensitivity.with_fields(config, one.fields)  # a valid config each


def test_mirrored_passes_have_no_dropout_to_change(tiny_config):
    config = sensitivity.with_fields(tiny_config, {"evaluate.source": "flips"})
    listed = variants.variants(flat_config(config))
    assert {one.group for one in listed[1:]} == {"overlap", "window", "source"}


def test_equal_settings_are_evaluated_once(tiny_config):
    """A patch as wide as the volume is the window that is taken by itself."""
    volume = tuple(tiny_config.data.shape)
    listed = variants.variants(flat_config(tiny_config))
    assert sensitivity.distinct(listed, tiny_config, volume) == listed
    wide = {"train.patch_shape": (*volume[:2], tiny_config.train.patch_shape[2])}
    config = sensitivity.with_fields(tiny_config, wide)
    listed = variants.variants(flat_config(config))
    kept = sensitivity.distinct(listed, config, volume)
    left_out = {(one.group, one.name) for one in listed if one not in kept}
    size = "x".join(map(str, wide["train.patch_shape"]))
    overlaps = (0.0, 0.25, 0.5)
    assert left_out == {("window", f"{size}, overlap {one}") for one in overlaps}


def test_numbers_of_a_variant():
    rng = np.random.default_rng(0)
    dice = np.sort(rng.random(20))
    good, noise = dice + 0.1 * rng.random(20), np.tile([0.0, 1.0], 10)
    base = rows_of(dice, d_pw=noise, cv=noise)
    found = variants.describe(rows_of(dice, d_pw=good, cv=noise), base)
    expected = stats.spearmanr(good, dice)
    one = found["measures"]["d_pw"]
    assert (one["rho"], one["p"]) == pytest.approx(tuple(expected))
    assert one["ci95"][0] > 0
    assert one["mean"] == pytest.approx(good.mean())
    assert found["measures"]["u_labelled"]["rho"] is None
    assert (found["n"], found["samples"], found["seconds"]) == (20, 10, 2.0)
    difference = expected.statistic - stats.spearmanr(noise, dice).statistic
    assert found["d_pw_change"]["value"] == pytest.approx(difference)
    assert found["d_pw_change"]["ci95"][0] > 0
    # Against itself nothing changes, in every resample.
    same = variants.describe(base, base)["d_pw_change"]
    assert same == {"value": 0.0, "ci95": [0.0, 0.0]}

    described = [
        (Variant("as evaluated", "", {}), variants.describe(base, base) | {"work": 1}),
        (
            Variant("overlap", "0.5", {"evaluate.overlap": (0.5,) * 3}),
            found | {"work": 4.375},
        ),
    ]
    first, second = tables.markdown([variants.table("run", described)]).splitlines()[
        -2:
    ]
    assert f"**{one['rho']:.2f}**" in second
    assert "**" not in first
    assert "| - |" in first
    assert second.endswith("| 2.00 | 4.38 |")


def test_work_counts_what_windows_see_twice():
    assert variants.work((8, 8, 4), (8, 8, 4), (0.5,) * 3) == 1
    # Windows at 0, 2 and 4 of a side of 8, each of 4.
    assert variants.work((8, 4, 4), (4, 4, 4), (0.5,) * 3) == 1.5
    assert variants.work((8, 8, 8), (4, 4, 4), (0.5,) * 3) == 1.5**3


def test_work_counts_the_padding():
    assert variants.work((6, 8, 4), (8, 8, 4), (0.5,) * 3) == 8 / 6


def test_windows_figure_lists_the_cheapest_at_the_top():
    dice = np.linspace(0.5, 0.9, 12)
    rows = rows_of(dice, d_pw=dice, cv=1 - dice)
    found = variants.describe(rows, rows)
    described = [
        (Variant("as evaluated", "", {}), found | {"work": 1.3}),
        (Variant("window", "the whole volume", {}), found | {"work": 1.0, "dice": 0.8}),
        (Variant("overlap", "0.5", {}), found | {"work": 2.0}),
        (Variant("source", "flips", {}), found | {"work": 1.3}),
    ]
    means, strength = variant_figures.windows_figure(described).axes
    labels = [label.get_text() for label in means.get_yticklabels()]
    assert labels[::-1] == [
        "the whole volume: work 1.00",
        "as evaluated: work 1.30",
        "overlap 0.5: work 2.00",
    ]
    np.testing.assert_allclose(means.lines[0].get_xdata(), [0.7, 0.7, 0.8])
    rhos = {line.get_label(): line.get_xdata() for line in strength.lines[:3]}
    np.testing.assert_allclose(rhos["CV"], -1)
    assert variant_figures.windows_figure(described[:1]) is None


def test_samples_figure_shows_levels_and_correlations():
    dice = np.linspace(0.5, 0.9, 12)
    described = []
    for count, level in ((5, 0.8), (10, 1.0), (2, 0.5)):
        rows = rows_of(dice, d_pw=level * dice, cv=1 - dice, u_labelled=1 - dice)
        rows = [{**row, "n_samples": count} for row in rows]
        group = "as evaluated" if count == 10 else "samples N"
        found = variants.describe(rows, rows)
        described.append((Variant(group, str(count), {}), found))
    level, strength = variant_figures.samples_figure(described).axes
    d_pw = next(line for line in level.lines if "pw" in line.get_label())
    np.testing.assert_allclose(d_pw.get_xdata(), [2, 5, 10])
    np.testing.assert_allclose(d_pw.get_ydata(), [0.5, 0.8, 1.0])
    assert {tuple(line.get_ydata()) for line in strength.lines[:3]} == {
        (1.0, 1.0, 1.0),
        (-1.0, -1.0, -1.0),
    }
    assert variant_figures.samples_figure(described[:1]) is None


def test_an_unknown_group_is_refused(tiny_config, tmp_path, capsys):
    files.write_json(tmp_path / "config.json", flat_config(tiny_config))
    flags = ["--output", str(tmp_path / "out"), "--only", "samples"]
    with pytest.raises(SystemExit) as done:
        sensitivity.main([str(tmp_path), *flags])
    assert done.value.code == 2
    assert "'samples': no such group; there are " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, "this command did not write it") for name in sensitivity._WRITTEN),
        ("output.json", "holds the cases of another command"),
        (".begun.json", "holds the cases of another command"),
    ],
)
def test_files_that_are_not_of_variants_are_kept(
    tiny_config, tmp_path, capsys, name, said
):
    files.write_json(tmp_path / "run" / "config.json", flat_config(tiny_config))
    files.write_text(tmp_path / "out" / name, '{"files": {}, "patterns": []}')
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as done:
        sensitivity.main([str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    assert done.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "name another --output" in printed
    assert printed.count("\n") == 1
    assert contents(tmp_path) == before


def test_variants_are_continued_in_their_own_output(tiny_config, tmp_path, monkeypatch):
    dice = np.linspace(0.5, 0.9, 12)

    def evaluated(one, *others):
        count = one.fields.get("evaluate.samples", tiny_config.evaluate.samples)
        return [{**row, "n_samples": count} for row in rows_of(dice, d_pw=dice)]

    monkeypatch.setattr(sensitivity, "evaluated", evaluated)
    files.write_json(tmp_path / "run" / "config.json", flat_config(tiny_config))
    output = tmp_path / "out"

    def code():
        flags = ["--output", str(output), "--only", "samples N", "overlap"]
        with pytest.raises(SystemExit) as done:
            sensitivity.main([str(tmp_path / "run"), *flags])
        return done.value.code

    assert code() == 0
    assert code() == 0
    (output / "sensitivity.json").unlink()
    (output / sensitivity._BEGUN).touch()  # as if killed
    assert code() == 0
    written = {path.name for path in output.iterdir()} - {files.LOCK}
    assert written == {*sensitivity._WRITTEN}


@pytest.mark.slow
def test_flips_and_ensembles_of_trained_runs(tiny_config, tmp_path):
    tiny_config.train.steps = 2
    tiny_config.train.validate_every_steps = 2
    tiny_config.data.split_file = str(tmp_path / "split.json")
    names = [f"liver_{i}" for i in range(6)]
    parts = {"train": names[:2], "validation": names[2:3], "test": names[3:]}
    files.write_json(tmp_path / "split.json", parts)
    runs = [tmp_path / f"seed{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(runs):
        tiny_config.seed = seed
        prepared = preparation.prepare(tiny_config)
        stages.train(tiny_config, prepared, folder)
        files.write_json(folder / "config.json", flat_config(tiny_config))
    output = tmp_path / "out"
    flags = ["--members", *map(str, runs), "--only", "source"]
    marks = []
    for _ in range(2):  # the second time everything is there
        with pytest.raises(SystemExit) as done:
            sensitivity.main([str(runs[0]), "--output", str(output), *flags])
        assert done.value.code == 0
        written = sorted(output.glob("*/cases.csv"))
        marks.append([one.stat().st_mtime_ns for one in written])
    assert len(marks[0]) == 3
    assert marks[0] == marks[1]
    found = json.loads((output / "sensitivity.json").read_text())
    assert [one["samples"] for one in found] == [4, 8, 2]
    assert all(0 <= one["measures"]["d_pw"]["mean"] <= 1 for one in found)

    # An ensemble is a run like any other, without a training of its own.
    tiny_config.evaluate.source = "ensemble"
    tiny_config.evaluate.members = tuple(map(str, runs))
    table = stages.evaluate_run(tiny_config, prepared, tmp_path / "ensemble")
    rows = cases_table.read_rows(
        tmp_path / "ensemble" / "cases.csv", EVALUATION_COLUMNS
    )
    assert len(rows) == 6
    folder = output / "source_ensemble_of_2" / "cases.csv"
    for row in cases_table.read_rows(folder, EVALUATION_COLUMNS):
        again = next(one for one in rows if one["case"] == row["case"])
        assert again["d_pw"] == row["d_pw"]
    assert "ensemble" in table
    # So are the samples of all its members.
    tiny_config.evaluate.source = "dropout"
    stages.evaluate_run(tiny_config, prepared, tmp_path / "samples")
    config = flat_config(tiny_config)
    files.write_json(tmp_path / "samples" / "config.json", config)
    opened = run_folder.open_run(tmp_path / "samples")
    assert {row["n_samples"] for row in opened.rows} == {8}
    assert opened.seeds == (0, 1)
    tiny_config.evaluate.members = (str(runs[0]), str(tmp_path / "absent"))
    with pytest.raises(InputError, match="absent holds no trained model"):
        stages.evaluate_run(tiny_config, prepared, tmp_path / "ensemble")


def test_a_failed_first_case_has_no_number_of_samples():
    dice = np.linspace(0.5, 0.9, 12)
    rows = rows_of(dice, d_pw=dice, cv=1 - dice)
    rows[0] |= {"n_samples": None, "dice": None, "d_pw": None, "status": "failed: x"}
    assert variants.describe(rows, rows)["samples"] == 10
