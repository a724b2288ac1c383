import io
import json

import pytest

from unc_jax.segmentation.progress import MetricLog, Progress, duration, plot_curves


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7500, "2 h 05 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress("train", 4, "step", stream=stream)
    for done in (1, 2, 3, 4):
        progress(done, "loss 0.5")
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert lines[-1].startswith("train 100% 4/4 steps")
    assert lines[-1].endswith("loss 0.5")
    assert len(lines) == 2  # the first and the last; the others came too soon


def test_one_line_is_redrawn_on_a_terminal():
    stream = Terminal()
    progress = Progress("train", 2, "step", stream=stream)
    progress(1)
    progress(2)
    assert stream.getvalue().count("\n") == 1


def test_resumed_work_counts_for_the_share_not_for_the_rate():
    stream = io.StringIO()
    Progress("train", 10, "step", done=9, stream=stream)(9)
    assert stream.getvalue() == "train  90% 9/10 steps\n"


def test_log_survives_a_torn_line_and_rewinds(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write(step, loss=step / 2)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in log.read()] == [1, 2, 3]
    log.rewind(2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 1.0},
    ]


def test_curves_are_a_png(tmp_path):
    records = [{"step": 1, "loss": 1.0}, {"step": 1, "validation_dice": 0.5}]
    plot_curves(records, tmp_path / "progress.png")
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
