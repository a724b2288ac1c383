import json

import numpy as np
import pytest
from test_compare import FAST, grouped, write_run

from unc_jax import compare
from unc_jax.errors import InputError
from unc_jax.study import calibration, comparison, voxel_agreement, voxel_report


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
        voxel_agreement.write_case(folder / "voxels" / f"{case}.json", found)
    content = voxel_agreement.collect(folder / "voxels", ["a", "b"])
    (folder / "voxels.json").write_text(json.dumps(content))
    return calibration.calibration(calibration.tally(q, label))


def test_runs_with_voxels_get_table_and_figure(tmp_path, monkeypatch):
    with_one, without = write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1)
    expected = with_voxels(with_one, raters=True)
    statistics = comparison.compare(grouped(with_one, without), resamples=FAST)
    found = statistics["models"][0]["voxels"]
    assert found["runs"] == 1
    single = found["calibration"]["single"]["everywhere"]
    assert single["brier"]["mean"] == pytest.approx(expected.brier)
    assert single["n"] == [2 * 12**3]
    assert found["raters"]["cross_correlation"]["mean"] == pytest.approx(0.3)
    assert found["raters"]["cross_correlation"]["n"] == [2]
    assert found["raters"]["cross_correlation_near"]["mean"] is None
    text = voxel_report.markdown(statistics)
    assert "| 0.3 | n/a | 0.1 | 2 |" in text
    drawn = []
    monkeypatch.setattr(voxel_report.figures, "save", lambda f, p: drawn.append(f))
    voxel_report.reliability_figure(statistics, tmp_path / "reliability.png")
    diagram = found["calibration"]["mean"]["near"]["reliability"]
    line = drawn[0].axes[0].lines[1]
    np.testing.assert_allclose(line.get_xdata(), diagram["probability"])
    np.testing.assert_allclose(line.get_ydata(), diagram["frequency"])


def test_compare_writes_them_only_where_they_are(tmp_path):
    folder, output = write_run(tmp_path / "run"), tmp_path / "results"
    with_voxels(folder, raters=False)
    arguments = [str(folder), "--output", str(output), "--resamples", "1000"]
    assert compare.main(arguments) == 0
    assert (output / "reliability.png").exists()
    assert "energy" not in (output / "voxels.md").read_text()
    (folder / "voxels.json").unlink()
    assert compare.main(arguments) == 0
    assert not (output / "reliability.png").exists()
    assert not (output / "voxels.md").exists()


def test_another_form_is_one_line(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    (folder / "voxels.json").write_text('{"cases": 2}')
    with pytest.raises(InputError, match="evaluate the run again"):
        comparison.compare(grouped(folder), resamples=FAST)
