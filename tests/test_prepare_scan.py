import json

from unc_jax.data import cohort
from unc_jax.review import prepare_scan


def test_training_cases_without_a_digest_are_told(tiny_run, tmp_path, caplog):
    """Of a cohort that an older version prepared, or continued."""
    (folder,) = (tiny_run.parents[1] / "prepared").glob("liver-*")
    opened = cohort.open_cohort(folder)
    first, *others = opened.split.train
    known = {r["id"]: r["voxels_sha256"] for r in opened.records}
    records = [
        {name: v for name, v in r.items() if name != "voxels_sha256"}
        if r["id"] == first
        else r
        for r in opened.records
    ]
    for given, count in ((opened.records, 0), (records, 1)):
        caplog.clear()
        with caplog.at_level("WARNING", logger="absl"):
            older = opened._replace(records=tuple(given))
            prepare_scan.store_preparation(tmp_path, older, [])
        assert caplog.text.count("1 training case prepared by an older ver") == count
    stored = json.loads((tmp_path / "preparation.json").read_text())["trained_on"]
    assert stored == {known[case]: case for case in others}
