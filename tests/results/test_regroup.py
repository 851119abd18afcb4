"""Finished runs in other groups of classes: made of the manifest's counts and the accuracies class by class."""

import json

import pytest

from ltkd.errors import UserError
from ltkd.results.files import RunFiles
from ltkd.results.regroup import regroup_by


def accuracy(per_class, total=None):
    total = sum(per_class) / len(per_class) if total is None else total
    return {"all": total, "per_class": per_class, "per_group": {"head": 1.0, "tail": 2.0}}


@pytest.fixture
def run(tmp_path):
    """Two of class 1's images were given up for validation, as the manifest says: 102 were chosen."""
    manifest = {"class_counts": [200, 100, 40, 10], "validation_from_training": [0, 2, 0, 0]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    last = accuracy([90.0, 70.0, 30.0, 10.0]) | {"validation": accuracy([80.0, 60.0, 20.0, 0.0])}
    teacher = {"accuracy": {"last": accuracy([100.0, 80.0, 40.0, 20.0])}}
    result = {
        "class_counts": [200, 100, 40, 10], "groups": [0, 0, 1, 1], "group_names": ["head", "tail"],
        "accuracy": {"last": last, "selected": None}, "teacher_result": teacher,
        "post_hoc": {"logit_adjusted": {"tau": 1.0, "test": accuracy([50.0, 50.0, 50.0, 10.0])}},
    }  # fmt: skip
    return result, RunFiles(tmp_path)


def test_accuracies_of_run_teacher_validation_and_corrections_are_regrouped(run):
    regrouped = regroup_by("many_medium_few")(*run)
    assert regrouped["groups"] == [0, 0, 1, 2]
    last = regrouped["accuracy"]["last"]
    assert last["per_group"] == {"many": 80.0, "medium": 30.0, "few": 10.0}
    assert last["all"] == 50.0
    assert last["validation"]["per_group"] == {"many": 70.0, "medium": 20.0, "few": 0.0}
    assert regrouped["teacher_result"]["accuracy"]["last"]["per_group"] == {"many": 90.0, "medium": 40.0, "few": 20.0}
    corrected = regrouped["post_hoc"]["logit_adjusted"]["test"]["per_group"]
    assert corrected == {"many": 50.0, "medium": 50.0, "few": 10.0}


def test_own_ranges(run):
    regrouped = regroup_by("{name: ranges, boundaries: [1, 3]}")(*run)
    assert regrouped["accuracy"]["last"]["per_group"] == {"many": 90.0, "medium": 50.0, "few": 10.0}


def test_a_mean_of_classes_is_no_accuracy_on_images_that_are_not_balanced(run):
    result, files = run
    result["accuracy"]["last"] = accuracy([90.0, 70.0, 30.0, 10.0], total=85.0)
    regrouped = regroup_by("many_medium_few")(result, files)
    assert set(regrouped["accuracy"]["last"]["per_group"].values()) == {None}


def test_images_are_counted_where_a_result_says_how_many_there_are(run):
    result, files = run
    result["test_counts"], result["validation_counts"] = [10, 30, 10, 0], [5, 5, 5, 5]
    result["accuracy"]["last"] = accuracy([90.0, 70.0, 30.0, None], total=66.0)
    result["accuracy"]["last"]["validation"] = accuracy([80.0, 60.0, 20.0, 0.0])
    result["robustness"] = {"student": {"clean": {"all": 50.0, "per_group": {"head": 1.0, "tail": 2.0}}}}
    last = (regrouped := regroup_by("{name: ranges, boundaries: [2, 3]}")(result, files))["accuracy"]["last"]
    assert last["per_group"] == {"many": 75.0, "medium": 30.0, "few": None}  # 9 + 21 of 40 images
    assert last["validation"]["per_group"] == {"many": 70.0, "medium": 20.0, "few": 0.0}
    attacked = regrouped["robustness"]["student"]["clean"]["per_group"]
    assert attacked == {"many": None, "medium": None, "few": None}  # which is not there class by class


def test_groups_that_a_result_has_stay_as_they_are(run):
    result, files = run
    result |= {"groups": [0, 0, 1, 2], "group_names": ["many", "medium", "few"]}
    assert regroup_by("many_medium_few")(result, files) == result | {"group_policy": "many_medium_few"}


@pytest.mark.parametrize("policy", ["thirds", "{name: ", "7"])
def test_what_is_no_policy_is_said_before_any_run_is_read(policy):
    with pytest.raises(UserError):
        regroup_by(policy)
