import base64
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from unc_jax.errors import InputError
from unc_jax.review import page, pictures
from unc_jax.review.report import write_review_report, write_run_report
from unc_jax.review.strips import place_among
from unc_jax.study import appraisal, cases_table, charts, figures
from unc_jax.study.case_columns import EVALUATION_COLUMNS, REVIEW_COLUMNS
from unc_jax.study.tables import Strong, Table

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style><b>&amp;",
    "../../etc/passwd",
    "a\x00b\x1b[31m\u202egnp.exe",
    "caf\udce9",  # a byte of a file name that is no UTF-8
    "x" * 300,
]


class Page(html.parser.HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def row(case, **values):
    defaults = {"status": "ok", "flag": "no", "n_samples": 10, "volume_ml": 1500.0}
    measured = {"cv": 20.0, "d_pw": 0.95, "u_labelled": 0.05}
    return cases_table.new_row(
        REVIEW_COLUMNS, **{**defaults, **measured, **values, "case": case}
    )


def written(path, rows, **changes):
    settings = {
        "title": "Review",
        "facts": {"run": "runs/demo"},
        "pictures": path.parent / "pictures",
        "known": {},
        "rule_text": "lower bound below 0.9",
    }
    write_review_report(path, rows, **{**settings, **changes})
    return Page(path)


def draw(folder, case):
    image = np.random.default_rng(0).normal(60, 30, (20, 20, 10))
    mask = np.zeros(image.shape, bool)
    mask[5:12, 6:14, 2:6] = True
    uncertainty = mask * 0.2
    pictures.write_picture(folder / f"{case}.png", image, mask, uncertainty, (3, 3, 5))


def test_worst_first_with_links_to_every_case(tmp_path):
    rows = [
        row("good", predicted_dice=0.95, dice_lower=0.92),
        row("bad", flag="yes", reason="lower bound 0.5", dice_lower=0.5),
        row("broken", status="failed: no such file", flag="yes"),
    ]
    shown = written(tmp_path / "report.html", rows)
    order = [shown.text.index(f"{i}. {c}") for i, c in enumerate(("broken", "bad"), 1)]
    assert order == sorted(order)
    links = {a["href"] for a in shown.of("a")}
    targets = {
        f"#{attributes['id']}" for _, attributes in shown.tags if "id" in attributes
    }
    assert links <= targets
    assert {"#case-1", "#case-2", "#case-3", "#list"} <= links
    for said in ("lower bound below 0.9", "no such file", "lower bound 0.5", "0.920"):
        assert said in shown.text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2, "2"), (2.0, "2.00"), (0, "0"), (1520, "1,520"), (12.34, "12.3"), (None, "")],
)
def test_rounded_numbers(value, text):
    assert page.rounded(value) == text


def test_summary_counts(tmp_path):
    rows = [row(f"c{i}", flag="yes" if i < 3 else "no") for i in range(8)]
    rows.append(
        cases_table.new_row(REVIEW_COLUMNS, case="f", status="failed: x", flag="yes")
    )
    text = " ".join(written(tmp_path / "r.html", rows).text.split())
    summary = text[text.index("9cases") :]
    assert summary.startswith("9cases 4to review (44 %) 5without a flag 1failed")


def test_dice_of_what_is_kept_when_references_exist(tmp_path):
    rows = [row("a", dice=0.9), row("b", dice=0.5, flag="yes"), row("c")]
    text = written(tmp_path / "r.html", rows).text
    assert "0.700 (n = 2) over all cases, 0.900 (n = 1)" in text
    assert "Mean Dice" not in written(tmp_path / "r.html", [row("a")]).text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(tmp_path, hostile):
    (tmp_path / "etc").mkdir()
    bad = row(hostile, reason=hostile, warnings=hostile, unlike=hostile, input=hostile)
    failed = row("f", status=f"failed: {hostile}")
    shown = written(
        tmp_path / "report.html",
        [bad, failed],
        title=hostile,
        facts={hostile: hostile},
        rule_text=hostile,
    )
    plain = written(tmp_path / "plain.html", [row("a"), failed])
    assert not shown.of("script")
    assert not shown.of("img")
    assert not any(name.startswith("on") for _, a in shown.tags for name in a)
    assert {tag for tag, _ in shown.tags} == {tag for tag, _ in plain.tags}
    # Nothing that changes the direction of writing, no control characters.
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", content)


def test_a_case_name_never_leads_out_of_the_folder_of_pictures(tmp_path):
    draw(tmp_path, "secret")
    shown = written(tmp_path / "r.html", [row("../secret")])
    assert not shown.of("img")


def test_one_file_that_may_load_nothing(tmp_path):
    draw(tmp_path / "pictures", "a")
    shown = written(tmp_path / "r.html", [row("a")])
    (picture,) = shown.of("img")
    kind, _, content = picture["src"].partition(";base64,")
    assert kind == "data:image/png"
    expected = (tmp_path / "pictures" / "a.png").read_bytes()
    assert base64.b64decode(content) == expected
    assert picture["loading"] == "lazy"
    assert int(picture["width"]) > int(picture["height"]) > 100
    policies = [a["content"] for a in shown.of("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    # An inline style would need what the policy refuses.
    assert not [tag for tag, attributes in shown.tags if "style" in attributes]
    assert not re.search(
        r"(?:src|href)=\"(?!data:|#)", (tmp_path / "r.html").read_text()
    )


@pytest.mark.parametrize("content", [b"", b"GIF89a" + b"0" * 99, b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_left_out(tmp_path, content):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(content)
    shown = written(tmp_path / "r.html", [row("a")])
    assert "No picture of this case" in shown.text
    assert not shown.of("img")


def test_the_picture_of_an_only_structure_has_the_name_of_its_case(tmp_path):
    draw(tmp_path / "pictures", "a")
    shown = written(tmp_path / "r.html", [row("a", structure="liver")])
    assert len(shown.of("img")) == 1


def test_where_the_uncertainty_lies_stands_below_the_picture(tmp_path):
    draw(tmp_path / "pictures", "a")
    case = row("a", uncertain_where="38.0 ml above 0.2")
    content = (written(tmp_path / "r.html", [case]), (tmp_path / "r.html"))[
        1
    ].read_text()
    words = content.index("38.0 ml above 0.2")
    assert content.index("<img") < words < content.index("<dl>")


def test_standard_errors_stand_beside_their_measures(tmp_path):
    found = written(tmp_path / "r.html", [row("a", d_pw_se=0.028), row("b")])
    assert found.text.count("±") == 2  # once in the words on how to read it
    assert "± 0.028" in found.text


def test_measures_stand_among_the_validation_cases(tmp_path):
    validation = {"cv": [10.0, 30.0, 40.0, None], "d_pw": [0.9, 0.97], "u_labelled": []}
    shown = written(tmp_path / "r.html", [row("a")], known={"": validation})
    assert "better than 2 of 3" in shown.text  # of CV, less is better
    assert "better than 1 of 2" in shown.text  # of D_pw, more is
    assert len(shown.of("svg")) == 2


@pytest.mark.parametrize(
    ("value", "values", "sign", "left"),
    [
        (5.0, [0.0, 10.0], 1, 0.5),
        (2.5, [0.0, 10.0], 1, 0.25),
        (2.5, [0.0, 10.0], -1, 0.75),
        (10.0, [1.0, 100.0], 1, 0.5),  # logarithmic
        (3.0, [3.0, 3.0], 1, 0.5),
    ],
)
def test_place_on_the_strip(value, values, sign, left):
    place = place_among(value, values, sign)
    assert place.mark == pytest.approx(8 + left * 154)
    assert place.beyond == 0
    assert len(place.ticks) == len(values)


@pytest.mark.parametrize(
    ("value", "sign", "beyond"), [(-1, 1, -1), (99, 1, 1), (99, -1, -1)]
)
def test_beyond_all_cases_is_an_arrow_at_the_edge(tmp_path, value, sign, beyond):
    place = place_among(value, [0.0, 10.0], sign)
    assert (place.beyond, place.mark) == (beyond, 8 if beyond < 0 else 162)
    name = "d_pw" if sign > 0 else "cv"
    other = {"cv": None, "d_pw": None, "u_labelled": None}
    case = row("a", **{**other, name: value})
    written(tmp_path / "r.html", [case], known={"": {name: [0.0, 10.0]}})
    content = (tmp_path / "r.html").read_text()
    assert f"M{place.mark:.1f} 4v12l{7 * beyond}-6z" in content
    assert "<circle" not in content


def test_five_hundred_cases(tmp_path):
    rows = [row(f"case_{i:03d}", dice_lower=i / 500) for i in range(500)]
    draw(tmp_path / "pictures", "case_000")
    one = tmp_path / "pictures" / "case_000.png"
    for i in range(1, 500):
        (tmp_path / "pictures" / f"case_{i:03d}.png").hardlink_to(one)
    path = tmp_path / "r.html"
    known = {"": {"cv": [float(i) for i in range(13)]}}
    shown = written(path, rows, known=known)
    assert len(shown.of("img")) == 500
    # What is not picture: less than 10 kB a case.
    assert path.stat().st_size < 500 * (one.stat().st_size * 4 / 3 + 10_000)


def test_no_case_at_all(tmp_path):
    assert "0cases" in written(tmp_path / "r.html", []).text


def test_the_old_page_stays_when_writing_fails(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("old")

    def tables():
        yield Table("half of the page")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        page.write_page(path, "study.html", title="new", tables=tables())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("width", [1280, 390])
def test_chromium_shows_the_page_without_complaint(tmp_path, width):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    draw(tmp_path / "pictures", "a")
    written(tmp_path / "r.html", [row("a", dice=0.9), row(HOSTILE[0])])
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    command += ["--enable-logging=stderr", "--v=0", "--dump-dom"]
    done = subprocess.run(
        [*command, (tmp_path / "r.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert 'id="case-2"' in done.stdout
    # Chromium logs what the page's own policy refused to the console.
    assert "CONSOLE" not in done.stderr


TABLE = Table("", ["a"], [[HOSTILE[0]], [Strong("1")]], "cap & tion", notes=["note"])


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
    summary = appraisal.summarise(rows, resamples=50)
    (folder / "summary.json").write_text(json.dumps(summary))
    figures.save(charts.figure2({"": rows}), folder / "figures" / "figure2.png")
    (folder / "config.json").write_text(json.dumps({"name": HOSTILE[0]}))
    return folder


def test_report_of_a_run(run):
    content = write_run_report(run, TABLE).read_text()
    assert '<td>D_pw</td><td class="number">1.00</td>' in content
    assert '<td>CV</td><td class="number">-1.00</td>' in content
    assert '<td>U_labelled</td><td class="number">n/a</td>' in content  # constant
    assert "mean Dice, test" in content
    assert "n = 6" in content
    assert content.count("data:image/png") == 1
    assert "<script" not in content
    assert content.count("&lt;script&gt;") == 2


def test_a_run_without_evaluation_is_one_line(tmp_path):
    with pytest.raises(InputError, match="evaluate the run first"):
        write_run_report(tmp_path)


def test_what_is_missing_is_left_out(run):
    for file in ("config.json", "figures/figure2.png"):
        (run / file).unlink()
    summary = json.loads((run / "summary.json").read_text())
    for one in summary["test"]["measures"].values():
        del one["reliability"]  # of an earlier version
    (run / "summary.json").write_text(json.dumps(summary))
    content = write_run_report(run).read_text()
    assert "mean Dice, test" in content
    assert "not measured" in content
    assert "<figure>" not in content
    assert "Beside the paper" not in content
