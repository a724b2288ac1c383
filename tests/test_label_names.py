"""Targets are found by the names of dataset.json, or refused with these names."""

from pathlib import Path

import pytest

from unc_jax.data.label_names import find_target, read_names
from unc_jax.errors import InputError

PLACE = Path("set/dataset.json")
AMOS = {"background": 0, "spleen": 1, "right kidney": 2, "liver": 6}


def values(labels, target="liver", **given):
    found = find_target(read_names(labels, PLACE), target, PLACE, **given)
    return found.liver, found.tumor


@pytest.mark.parametrize(
    ("labels", "liver", "tumor"),
    [
        ({"0": "background", "1": "liver", "2": "cancer"}, (1, 2), (2,)),
        ({"background": 0, "liver": 1, "tumor": 2}, (1, 2), (2,)),
        ({"background": 0, "Liver": 1, "liver_tumour": 2, "spleen": 3}, (1, 2), (2,)),
        ({"background": 0, "liver": [1, 2], "lesion": 2}, (1, 2), (2,)),
        ({"background": 0, "liver and tumor": [1, 2], "tumor": 2}, (1, 2), (2,)),
        ({"0": "background", "1": "LiverLesions", "2": "LIVER"}, (1, 2), (1,)),
        ({"background": 0, "left lobe of liver": 4, "right liver lobe": 5}, (4, 5), ()),
        (AMOS, (6,), ()),
        # Whose tumour it is, or what is to be ignored, nobody says.
        ({"background": 0, "liver": 1, "kidney": 2, "tumor": 3}, (1,), ()),
        ({"background": 0, "liver": 1, "ignore": 2}, (1,), ()),
        ({"background": 0, "liver": 1, "kidney": 2, "spleen": 3}, (1,), ()),
        ({"background": 0, "liver": 1, "hepatic vessel": 2}, (1,), ()),
        ({"background": 0, "liver": 1, "pancreatic cancer": 2}, (1,), ()),
    ],
)
def test_liver_and_tumours_are_found_by_name(labels, liver, tumor):
    assert values(labels) == (liver, tumor)


@pytest.mark.parametrize(
    ("labels", "target"),
    [
        ({"background": 0, "spleen": 1, "right kidney": 2}, "liver"),
        ({"0": "background", "1": "Anterior", "2": "Posterior"}, "liver"),
        ({"0": "background", "1": "pancreas", "2": "cancer"}, "liver"),
        ({"background": 0, "liver vessels": 1, "cancer": 2}, "liver"),
        ({"liver": 0, "cancer": 2}, "liver"),
        (AMOS, "tumor"),
        ({"background": 0, "liver": 1, "kidney": 2, "tumor": 3}, "tumor"),
    ],
)
def test_other_names_are_refused_and_listed(labels, target):
    with pytest.raises(
        InputError, match=r"dataset\.json: names no .* among [12] "
    ) as e:
        values(labels, target)
    assert "--config.data." in str(e.value)


def test_values_that_are_given_go_before_names():
    hippocampus = {"0": "background", "1": "Anterior", "2": "Posterior"}
    given = {"liver": (1, 2), "tumor": (2,)}
    assert values(hippocampus, **given) == values(hippocampus, "tumor", **given)
    assert values(hippocampus, **given) == ((1, 2), (2,))
    assert values({"1": "liver", "2": "cancer"}, liver=(1,))[0] == (1,)


def test_the_organ_of_tumours_includes_them():
    """Voxels outside the organ are erased: there they would mark the tumours."""
    names = {"1": "liver", "2": "cancer"}
    assert values(names, "tumor", liver=(1,), tumor=(2,)) == ((1, 2), (2,))


def test_a_value_that_no_label_has_is_refused():
    with pytest.raises(InputError, match=r"no label has the value 7, .* 1 liver"):
        values({"0": "background", "1": "liver"}, liver=(7,))
    with pytest.raises(InputError, match="must map values to names"):
        values({"background": 0, "liver": 1.7})


def test_the_organ_includes_tumours_that_only_their_number_names():
    """Otherwise it is trained with holes."""
    assert values({"0": "background", "1": "liver", "2": "mass"}, tumor=(2,)) == (
        (1, 2),
        (2,),
    )
    assert values({"1": "liver", "2": "mass"}, liver=(1,), tumor=(2,))[0] == (1,)


def test_what_is_ignored_is_no_target_even_if_asked_for():
    with pytest.raises(InputError, match="label 2 is to be ignored"):
        values({"background": 0, "liver": 1, "ignore": 2}, liver=(1, 2))


def test_words_say_what_is_taken_and_what_is_not():
    names = read_names({"1": "liver", "2": "cancer", "3": "spleen"}, PLACE)
    assert (
        find_target(names, "liver", PLACE).words
    ) == "target liver: 1 liver; not 2 cancer, 3 spleen"
    names = read_names({"1": "liver", "2": "cancer"}, PLACE)
    words = find_target(names, "tumor", PLACE).words
    assert words == "target tumor: 2 cancer within 1 liver, 2 cancer; not 1 liver"
