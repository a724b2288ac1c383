import json
import shutil

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_compare import FAST, command, grouped, write_run
from test_evaluate import to_prediction

from unc_jax import preparation
from unc_jax.data import files, nifti, prepare_case
from unc_jax.errors import InputError
from unc_jax.study import charts, comparison, metrics, tables, voxel_agreement
from unc_jax.study.distances import near_boundary


def a_cube(start=10, stop=20, size=30):
    mask = np.zeros((size, size, size), np.uint8)
    mask[start:stop, start:stop, start:stop] = 1
    return mask


def test_cases_add_up_through_their_files(tmp_path):
    rng = np.random.default_rng(0)
    label = a_cube()
    p, q = rng.random((2, 30, 30, 30)).astype(np.float32)
    for case in ("a", "b"):
        found = {**voxel_agreement.assess(p, q, label), "raters": None}
        files.write_json(tmp_path / f"{case}.json", found)
    content = voxel_agreement.collect(tmp_path, ["a", "b", "not evaluated"])
    assert content["cases"] == 2
    assert content["raters"] == {}
    summed = content["tallies"]
    alone = metrics.sum_voxels(q, label)
    twice = summed["single"]["everywhere"]
    assert np.divide(twice["count"], 2).tolist() == alone["count"]
    expected = {**metrics.calibration(alone), "n": 2 * label.size}
    assert metrics.calibration(twice) == pytest.approx(expected)
    near = metrics.sum_voxels(p, label, within=near_boundary(label))
    assert summed["mean"]["near"]["log_loss"] == pytest.approx(2 * near["log_loss"])
    assert voxel_agreement.collect(tmp_path, ["c"]) is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        voxel_agreement.collect(tmp_path, ["a"])


def test_rounding_above_one_is_no_error():
    p = np.full((6, 6, 6), np.nextafter(np.float32(1), np.float32(2)))
    found = voxel_agreement.assess(p, p, np.ones((6, 6, 6)))
    assert found["mean"]["everywhere"]["count"][-1] == 216


def test_a_map_of_the_raters_disagreement_is_the_best():
    raters = np.stack([a_cube(10, stop) for stop in (18, 20, 20, 22)])
    share = raters.mean(axis=0)
    packed = np.packbits(raters, axis=-1)
    same = voxel_agreement.against_raters(share * (1 - share), packed, raters)
    assert same["cross_correlation"] == pytest.approx(1)
    assert same["cross_correlation_near"] == pytest.approx(1)
    assert same["energy_distance"] == pytest.approx(0)
    noise = np.random.default_rng(0).random(share.shape)
    other = voxel_agreement.against_raters(noise, packed[:2], raters)
    assert abs(other["cross_correlation"]) < 0.05
    assert other["energy_distance"] > 0


def test_raters_lie_on_the_prepared_grid(tmp_path):
    geometry = nifti.Geometry((8, 6, 4), np.diag([-1.0, 1.0, 2.0, 1.0]))
    maps = np.random.default_rng(0).integers(0, 3, (11, 8, 6, 4)).astype(np.uint8)
    for k in range(11):
        path = tmp_path / "raters" / f"case_1_r{k}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nifti.write(path, maps[k], geometry, np.uint8)
    paths = prepare_case.rater_files(tmp_path, "case_1")
    assert [path.name for path in paths[-2:]] == [
        "case_1_r9.nii.gz",
        "case_1_r10.nii.gz",
    ]
    assert prepare_case.rater_files(tmp_path / "absent", "case_1") == []
    record = {"geometry": geometry.to_json(), "box": [[2, 8], [0, 6], [1, 4]]}
    given = {"record": record, "shape": (6, 6, 3), "values": (1, 2)}
    found = prepare_case.prepare_raters(paths, **given)
    np.testing.assert_array_equal(found, maps[:, 2:8, :, 1:4] > 0)
    moved = np.diag([-1.0, 1.0, 2.0, 1.0])
    moved[2, 3] = 1.5  # of 2 mm
    for other in (nifti.Geometry((8, 6, 4), moved), nifti.Geometry((9, 6, 4), moved)):
        nifti.write(paths[1], np.zeros(other.shape, np.uint8), other, np.uint8)
        with pytest.raises(InputError, match=r"_r1\.nii\.gz: does not lie on the grid"):
            prepare_case.prepare_raters(paths, **given)


def test_an_unreadable_rater_costs_the_comparison_alone(tiny_config, tmp_path, caplog):
    root = shutil.copytree(tiny_config.data.root, tmp_path / "task")
    prepared = preparation.prepare(tiny_config)
    good, bad = prepared.split.test[:2]
    (root / "raters" / f"{bad}_r1.nii.gz").write_bytes(b"torn")
    assess = voxel_agreement.build_assessment(
        prepared,
        lambda image: np.zeros(image.shape, np.float32),
        raters_of=root,
        values=(1, 2),
        folder=tmp_path / "voxels",
    )
    for case in (good, bad):
        index = prepared.ids.index(case)
        with caplog.at_level("WARNING", logger="absl"):
            assess(index, to_prediction(np.stack([prepared.labels[index]] * 2)))
    found = voxel_agreement.collect(tmp_path / "voxels", [good, bad])
    assert found["cases"] == 2
    assert list(found["raters"]) == [good]
    assert f"{bad} is not compared with its raters: " in caplog.text
    assert f"{bad}_r1.nii.gz" in caplog.text


def with_voxels(folder, *, raters):
    """The run at `folder` with a voxels.json of two made-up cases."""
    label = np.zeros((12, 12, 12), np.uint8)
    label[4:8, 4:8, 4:8] = 1
    rng = np.random.default_rng(0)
    p, q = rng.random((2, 12, 12, 12))
    for number, case in enumerate(("a", "b")):
        found = {**voxel_agreement.assess(p, q, label), "raters": None}
        if raters:
            found["raters"] = {
                "cross_correlation": 0.2 + 0.2 * number,
                "cross_correlation_near": None,
                "energy_distance": 0.1,
            }
        files.write_json(folder / "voxels" / f"{case}.json", found)
    content = voxel_agreement.collect(folder / "voxels", ["a", "b"])
    (folder / "voxels.json").write_text(json.dumps(content))
    return metrics.calibration(metrics.sum_voxels(q, label))


def test_runs_with_voxels_get_table_and_figure(tmp_path):
    with_one, without = write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1)
    expected = with_voxels(with_one, raters=True)
    statistics = comparison.compare(grouped(with_one, without), resamples=FAST)
    found = statistics["models"][0]["voxels"]
    assert found["runs"] == 1
    single = found["calibration"]["single"]["everywhere"]
    assert single["brier"]["mean"] == pytest.approx(expected["brier"])
    assert single["n"] == [2 * 12**3]
    assert found["raters"]["cross_correlation"]["mean"] == pytest.approx(0.3)
    assert found["raters"]["cross_correlation"]["n"] == [2]
    assert found["raters"]["cross_correlation_near"]["mean"] is None
    text = tables.markdown(voxel_agreement.voxel_tables(statistics))
    assert "| 0.3 | n/a | 0.1 | 2 |" in text
    drawn = charts.reliability_figure(statistics)
    diagram = found["calibration"]["mean"]["near"]["reliability"]
    line = drawn.axes[0].lines[1]
    np.testing.assert_allclose(line.get_xdata(), diagram["probability"])
    np.testing.assert_allclose(line.get_ydata(), diagram["frequency"])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_titles_and_legend_of_the_figure_are_whole(tmp_path, count):
    folders = [
        write_run(tmp_path / f"r{i}", **{"train.steps": i}) for i in range(count)
    ]
    for folder in folders:
        with_voxels(folder, raters=False)
    statistics = comparison.compare(grouped(*folders), resamples=FAST)
    drawn = charts.reliability_figure(statistics)
    FigureCanvasAgg(drawn).draw()
    below = drawn.legends[0].get_window_extent()
    for ax in drawn.axes[:count]:
        box = ax.get_tightbbox()
        assert box.y1 <= drawn.bbox.y1
        assert box.y0 >= below.y1


def test_compare_writes_them_only_where_they_are(tmp_path):
    folder, output = write_run(tmp_path / "run"), tmp_path / "results"
    with_voxels(folder, raters=False)
    arguments = [folder, "--output", output, "--resamples", "1000"]
    assert command(*arguments) == 0
    assert (output / "reliability.png").exists()
    assert "energy" not in (output / "voxels.md").read_text()
    (folder / "voxels.json").unlink()
    assert command(*arguments) == 0
    assert not (output / "reliability.png").exists()
    assert not (output / "voxels.md").exists()


def test_another_form_is_one_line(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "voxels.json").write_text('{"cases": 2}')
    with pytest.raises(InputError, match="evaluate the run again"):
        comparison.compare(grouped(folder), resamples=FAST)


def test_raters_of_a_case_are_not_those_of_another(tmp_path):
    names = ("p1_r0", "p1_r1", "p1_r10", "p1_rescan_r0", "p1_right")
    (tmp_path / "raters").mkdir()
    for name in names:
        (tmp_path / "raters" / f"{name}.nii.gz").touch()
    found = prepare_case.rater_files(tmp_path, "p1")
    assert [path.name[:-7] for path in found] == ["p1_r0", "p1_r1", "p1_r10"]
