import json

import pytest

from unc_jax.errors import InputError
from unc_jax.review import runreport
from unc_jax.study import cases_table, evaluate, figures
from unc_jax.study.cases_table import EVALUATION_COLUMNS

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path):
    rows = [
        cases_table.new_row(EVALUATION_COLUMNS, 
            case=f"c{i}", split="test" if i < 6 else "train", status="ok",
            dice=0.9 - i / 100, cv=1.0 + i, d_pw=0.95 - i / 50, u_labelled=0.1,
        )
        for i in range(9)
    ]  # fmt: skip
    folder = tmp_path / "demo"
    folder.mkdir()
    summary = evaluate.summarise(rows, resamples=50)
    (folder / "summary.json").write_text(json.dumps(summary))
    figures.figure2(rows, folder / "figures" / "figure2.png")
    (folder / "config.json").write_text(json.dumps({"name": HOSTILE}))
    (folder / "table.md").write_text(f"| a | b |\n| --- | --- |\n| 1 | {HOSTILE} |\n")
    return folder


def test_report_of_a_run(run):
    content = runreport.write_run_report(run).read_text()
    assert '<td>D_pw</td><td class="number">1.00</td>' in content
    assert '<td>CV</td><td class="number">-1.00</td>' in content
    assert '<td>U_labelled</td><td class="number">n/a</td>' in content  # constant
    assert "mean Dice, test" in content
    assert "n = 6" in content
    assert content.count("data:image/png") == 1
    assert "<script" not in content
    assert content.count("&lt;script&gt;") == 2


def test_a_run_without_evaluation_is_one_line(tmp_path, capsys):
    with pytest.raises(InputError, match="evaluate the run first"):
        runreport.write_run_report(tmp_path)
    for arguments in ([str(tmp_path)], []):
        with pytest.raises(SystemExit) as stop:
            runreport.main(arguments)
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_what_is_missing_is_left_out(run):
    for file in ("config.json", "table.md", "figures/figure2.png"):
        (run / file).unlink()
    content = runreport.write_run_report(run).read_text()
    assert "mean Dice, test" in content
    assert "<figure>" not in content
