"""Ensembles of seeds beside their members in the tables, claims and figures."""

import json

import numpy as np
import pytest
from test_compare import FAST, command, grouped, markdown_of, write_run
from test_folds import rows_of_fold, write_folds

from unc_jax.study import appraisal, case_columns, cases_table, comparison, tables

SEEDS = (0, 1, 2)
ENSEMBLE, SAMPLES = "ensemble of 3 seeds", "10 samples of each of 3 seeds"
SINGLE = "MC dropout, 10 samples"


def write_ensemble(folder, source, *, seeds=SEEDS, count=3, rows=None, **fields):
    """A made-up ensemble, whose measures follow Dice closely."""

    def with_count(made):
        made = rows(made) if rows else made
        return [{**row, "n_samples": count} for row in made]

    members = [f"/runs/seed{seed}" for seed in seeds]
    fields = {"evaluate.source": source, "evaluate.members": members, **fields}
    write_run(folder, noise=0.1, rows=with_count, **fields)
    record = {"seeds": list(seeds)}
    (folder / "evaluation.json").write_text(json.dumps(record))
    return folder


def write_study(root, **fields):
    own = {"evaluate.source": "dropout", **fields}
    singles = [
        write_run(root / f"seed{seed}", noise=6.0, seed=seed, **own) for seed in SEEDS
    ]
    samples = write_ensemble(root / "samples", "dropout", count=30, **fields)
    return [*singles, samples, write_ensemble(root / "passes", "ensemble", **fields)]


def test_ensembles_are_rows_behind_their_members(tmp_path):
    folders = write_study(tmp_path)
    models = grouped(*folders)
    assert [model.source for model in models] == [SINGLE, ENSEMBLE, SAMPLES]
    assert [len(model.runs) for model in models] == [3, 1, 1]
    assert {model.variant for model in models} == {""}
    found = comparison.compare(models, resamples=FAST)
    lines = [one for one in markdown_of(found).splitlines() if "| measured" in one]
    cells = [[cell.strip() for cell in line.split("|")[3:5]] for line in lines]
    assert cells == [
        [f"measured: {SINGLE}", "0, 1, 2"],
        [f"measured: {ENSEMBLE}", "0+1+2"],
        [f"measured: {SAMPLES}", "0+1+2"],
        ["measured", ""],  # the paper's other models, not run
        ["measured", ""],
        ["measured", ""],
    ]
    measures = tables.markdown([appraisal.measures_table(found)])
    assert measures.count(f"| liver large dice: {SAMPLES} | d_pw |") == 1
    # Members one by one are what they are without an ensemble beside them.
    alone = comparison.compare(grouped(*folders[:3]), resamples=FAST)
    one, same = alone["models"][0], found["models"][0]
    assert one["name"] == "liver large dice"
    assert one["measures"] == same["measures"]
    assert "measured |" in markdown_of(alone)
    assert alone["scope"] in found["scope"]


def claims_of(found):
    return {one["claim"]: one for one in found["claims"]}


def test_ensembles_are_claims_of_their_own(tmp_path):
    folders = write_study(tmp_path)
    found = claims_of(comparison.compare(grouped(*folders), resamples=FAST))
    alone = claims_of(comparison.compare(grouped(*folders[:3]), resamples=FAST))
    own = [name for name in found if name not in alone]
    assert own == [
        f"Table 1, {source} > MC dropout, {measure}"
        for source in (ENSEMBLE, SAMPLES)
        for measure in ("CV", "D_pw", "U_labelled")
    ]
    for name, one in alone.items():  # the paper's are on networks one by one
        assert found[name]["value"] == one["value"]
        assert found[name]["pairs"] == one["pairs"]
    # Paired: rho of the ensemble less the mean of its members', case by case.
    rhos = [
        appraisal.summarise(grouped(folder)[0].runs[0].rows)["test"]["measures"]["d_pw"]
        for folder in (folders[4], *folders[:3])
    ]
    rhos = [one["rho"] for one in rhos]
    claim = found[own[1]]
    assert claim["value"] == pytest.approx(rhos[0] - np.mean(rhos[1:]))
    tested = [one for one in found.values() if one["p_bootstrap"] is not None]
    assert len(tested) == len(own) + 6
    lowest = min(tested, key=lambda one: one["p_bootstrap"])
    assert lowest["p_holm"] == pytest.approx(len(tested) * lowest["p_bootstrap"])


def test_an_ensemble_is_paired_with_the_model_of_its_config(tmp_path):
    folders = [
        *write_study(tmp_path / "a", **{"model.dropout_rate": 0.1}),
        *write_study(tmp_path / "b", **{"model.dropout_rate": 0.2}),
    ]
    models = grouped(*folders)
    assert [model.variant[-3:] for model in models] == ["0.1", "0.2"] * 3
    found = claims_of(comparison.compare(models, resamples=FAST))
    assert found[f"Table 1, {ENSEMBLE} > MC dropout, CV"]["pairs"] == 2


def write_folds_of_ensembles(root, source, seeds=SEEDS):
    return [
        write_ensemble(
            root / f"{source}_fold{fold}",
            source,
            seeds=seeds,
            rows=rows_of_fold(fold, 9),
            **{"data.fold": fold},
        )
        for fold in range(5)
    ]


def test_ensembles_of_folds_are_joined(tmp_path, capsys):
    singles = [one for seed in SEEDS for one in write_folds(tmp_path, seed=seed)]
    ensembles = write_folds_of_ensembles(tmp_path, "ensemble")
    output = tmp_path / "out"
    flags = ("--output", output, "--resamples", "1000")
    assert command(*singles, *ensembles, *flags) == 0
    found = json.loads((output / "statistics.json").read_text())["models"]
    assert [(one["source"], one["folds"], one["n_test"]) for one in found] == [
        (SINGLE, 5, 20),
        (ENSEMBLE, 5, 20),
    ]
    assert f"{ENSEMBLE} > MC dropout, D_pw: " in capsys.readouterr().out
    # From the copies that were kept, the same again.
    kept = sorted((output / "runs").iterdir())
    assert command(*kept, "--output", tmp_path / "again", "--resamples", "1000") == 0
    table = (output / "table1.md").read_text()
    assert (tmp_path / "again" / "table1.md").read_text() == table
    # Another ensemble's fold does not fill a gap.
    other = write_folds_of_ensembles(tmp_path / "other", "ensemble", seeds=(0, 1, 3))
    capsys.readouterr()
    assert command(*ensembles[:4], other[4], "--output", tmp_path / "no") == 2
    error = capsys.readouterr().err
    assert "of its 5 folds (seed 0+1+2) 4 missing" in error


def test_what_cannot_be_told_apart_is_one_line(tmp_path, capsys):
    first = write_ensemble(tmp_path / "first", "dropout")
    second = write_ensemble(tmp_path / "second", "dropout", seeds=(2, 0, 1))
    assert command(first, second, "--output", tmp_path / "out") == 2
    assert "one config with one seed (0+1+2)" in capsys.readouterr().err
    (second / "evaluation.json").write_text('{"cohort": "a"}')
    assert command(second, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "does not state the seeds of the members" in error
    assert error.count("\n") == 1


def test_figure1_has_the_members_only(tmp_path):
    folders = [write_run(tmp_path / f"seed{s}", seed=s, panels=True) for s in SEEDS]
    folders.append(write_ensemble(tmp_path / "ensemble", "ensemble"))
    output = tmp_path / "out"
    assert command(*folders, "--output", output, "--resamples", "1000") == 0
    # The ensemble has no slices, with which no case could be drawn.
    assert (output / "figure1.png").exists()
    assert (output / "referral.png").exists()
    columns = case_columns.EVALUATION_COLUMNS
    kept = output / "runs" / "ensemble" / "cases.csv"
    assert cases_table.read_rows(kept, columns)[0]["n_samples"] == 3
