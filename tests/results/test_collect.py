"""Tables from result.json files made by hand: means, deviations, what differs, what is missing."""

import json
import math

import pytest

from ltkd.results.collect import collect, comma_separated, markdown, summary_rows
from ltkd.results.read import SCHEMA_VERSION


def write_run(folder, method, seed, accuracy, *, cell=None, tail=5.0, teacher_seed=0, **settings):
    names = {"dataset": "d-if100", "teacher": "big", "student": "small", "method": method}
    directory = folder / f"{method}-{cell or method}-{seed}-{teacher_seed}"
    directory.mkdir(parents=True)
    validation = {"all": accuracy - 3, "per_group": {"head": 1.0, "medium": None, "tail": 2.0}}
    record = {
        "epoch": 9,
        "validation": validation,
        "all": accuracy,
        "per_group": {"head": 2 * accuracy, "medium": None, "tail": tail},
    }
    result = {
        **names, "schema_version": SCHEMA_VERSION, "study": "main", "hash": f"{method}{cell}{seed}{teacher_seed}",
        "evaluate_every": settings.pop("evaluate_every", 1), "cell": cell or method, "seed": seed,
        "accuracy": {"last": record, "best": record | {"all": accuracy + 1}, "selected": None},
        "group_names": ["head", "medium", "tail"],
        "identity": {"seed": seed, "method": {"name": method, **settings}, "recipe": {"epochs": 10},
                     "teacher": {"seed": teacher_seed}},
    }  # fmt: skip
    (directory / "result.json").write_text(json.dumps(result))
    return directory


def test_mean_and_sample_deviation_over_seeds(tmp_path):
    for seed, accuracy in enumerate((40.0, 41.0, 45.0)):
        write_run(tmp_path, "kd", seed, accuracy)
    [row] = summary_rows(collect([tmp_path]).cells, "last")
    assert row["n"] == 3
    assert row["all"] == pytest.approx(42.0)
    assert row["all std"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert row["medium"] is None
    table = markdown(collect([tmp_path]).cells, "last")
    assert "42.00 ± 2.65" in table
    assert "n/a" in table
    assert "43.00 ± 2.65" in markdown(collect([tmp_path]).cells, "best")
    assert "42.0" in comma_separated(collect([tmp_path]).cells, "last")


def test_runs_that_differ_in_a_setting_are_never_mixed_and_say_in_what(tmp_path):
    write_run(tmp_path, "kd", 0, 40.0, cell="a", temperature=2)
    write_run(tmp_path, "kd", 0, 50.0, cell="b", temperature=4)
    rows = summary_rows(collect([tmp_path]).cells, "last")
    assert sorted((row["settings"], row["n"], row["all"]) for row in rows) == [
        ("temperature=2", 1, 40.0),
        ("temperature=4", 1, 50.0),
    ]


def test_a_setting_that_is_null_is_told_from_one_that_is_not_there(tmp_path):
    write_run(tmp_path, "kd", 0, 40.0, cell="a", deferred=None)
    write_run(tmp_path, "kd", 0, 50.0, cell="b", deferred=0.8)
    write_run(tmp_path, "kd", 0, 60.0, cell="c")
    rows = summary_rows(collect([tmp_path]).cells, "last")
    assert {row["all"]: row["settings"] for row in rows} == {40.0: "deferred=null", 50.0: "deferred=0.8", 60.0: ""}


def test_fewer_seeds_of_longer_trainings_are_not_missing(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "kd", seed, 40.0)
    for seed in range(2):
        directory = write_run(tmp_path, "kd", seed, 50.0, cell="long", more=1)
        result = json.loads((directory / "result.json").read_text())
        result["identity"]["recipe"]["epochs"] = 120
        (directory / "result.json").write_text(json.dumps(result))
    assert collect([tmp_path]).incomplete == []


def test_missing_seeds_and_unfinished_runs_are_named(tmp_path):
    write_run(tmp_path, "kd", 0, 40.0)
    write_run(tmp_path, "kd", 1, 41.0)
    write_run(tmp_path, "ltkd", 1, 41.0)
    for status, error in (("failed", "UserError: loss became nan\nmore"), ("running", None)):
        folder = tmp_path / status
        folder.mkdir()
        info = {"status": status, "label": "d-ltkd", "seed": 2, "error": error}
        (folder / "status.json").write_text(json.dumps(info))
    lines = collect([tmp_path]).incomplete
    assert lines == [
        f"failed: d-ltkd seed 2 (UserError: loss became nan)  [{tmp_path}/failed]",
        f"running or killed: d-ltkd seed 2  [{tmp_path}/running]",
        "missing: d-if100 big small ltkd seed 0",
    ]


def test_a_folder_given_twice_counts_once(tmp_path):
    write_run(tmp_path, "kd", 0, 40.0)
    assert summary_rows(collect([tmp_path, tmp_path]).cells, "last")[0]["n"] == 1


def test_one_seed_with_two_teachers_is_not_two_seeds(tmp_path):
    for seed, teacher_seed, accuracy in ((0, 0, 40.0), (1, 0, 42.0), (1, 1, 50.0)):
        write_run(tmp_path, "kd", seed, accuracy, teacher_seed=teacher_seed)
    rows = summary_rows(collect([tmp_path]).cells, "last")
    assert [(row["settings"], row["n"], row["all"]) for row in rows] == [
        ("teacher.seed=0", 2, 41.0),
        ("teacher.seed=1", 1, 50.0),
    ]


def test_a_table_says_which_accuracy_it_shows(tmp_path):
    write_run(tmp_path, "kd", 0, 40.0)
    cells = collect([tmp_path]).cells
    assert markdown(cells, "last").startswith("accuracy on the test part after the last epoch")
    assert markdown(cells, "best").startswith("BEST epoch ON THE TEST PART")
    validation = markdown(cells, "validation")
    assert validation.startswith("accuracy on the VALIDATION split")
    assert "37.00" in validation
    assert comma_separated(cells, "validation").splitlines()[1].split(",")[5] == "validation"


def test_runs_corrected_with_different_taus_are_never_mixed(tmp_path):
    corrections = [(1.0, "default"), (1.0, "setting"), (0.5, "setting"), (0.3, "validation"), (0.7, "validation"), None]
    for seed, correction in enumerate(corrections):
        path = write_run(tmp_path, "kd", seed, 40.0 + seed) / "result.json"
        result = json.loads(path.read_text())
        if correction is not None:
            tau, chosen_by = correction
            test = {"all": 50.0 + seed, "per_group": {"head": None, "medium": None, "tail": None}}
            result["post_hoc"] = {"logit_adjusted": {"tau": tau, "chosen_by": chosen_by, "test": test}}
        path.write_text(json.dumps(result))
    cells = collect([tmp_path]).cells
    rows = {row["settings"]: row for row in summary_rows(cells, "logit_adjusted") if row["method"] == "kd"}
    assert {settings: (row["n"], row["all"]) for settings, row in rows.items()} == {
        "tau=1": (2, 50.5), "tau=0.5": (1, 52.0), "tau by validation": (2, 53.5),
    }  # fmt: skip
    assert "tau by validation" in markdown(cells, "logit_adjusted")
    [last] = [row for row in summary_rows(cells, "last") if row["method"] == "kd"]
    assert (last["n"], last["settings"]) == (6, "")


def test_trial_runs_in_hidden_folders_are_no_results(tmp_path):
    write_run(tmp_path / "main", "kd", 0, 40.0)
    write_run(tmp_path / "smoke" / ".runs-x", "kd", 1, 10.0, cell="x")
    assert [len(cell.runs) for cell in collect([tmp_path]).cells] == [1]


def test_settings_are_sorted_as_numbers_and_name_how_often_was_evaluated(tmp_path):
    for temperature in (16, 4, 2):
        write_run(tmp_path, "kd", 0, 40.0, cell=f"t{temperature}", temperature=temperature)
    settings = [row["settings"] for row in summary_rows(collect([tmp_path]).cells, "last")]
    assert settings == ["temperature=2", "temperature=4", "temperature=16"]
    write_run(tmp_path / "other", "dkd", 0, 40.0, cell="a", evaluate_every=1)
    write_run(tmp_path / "other", "dkd", 0, 40.0, cell="b", evaluate_every=5)
    settings = [row["settings"] for row in summary_rows(collect([tmp_path / "other"]).cells, "last")]
    assert settings == ["evaluate_every=1", "evaluate_every=5"]


def test_the_rows_of_an_ablation_show_what_was_changed(tmp_path):
    for cell, settings in {"a": {}, "b": {"alpha": 0}, "c": {"beta": 0}, "d": {"temperature": 4}}.items():
        write_run(tmp_path, "ltkd", 0, 40.0, cell=cell, **({"alpha": 1, "beta": 1, "temperature": 2} | settings))
    settings = [row["settings"] for row in summary_rows(collect([tmp_path]).cells, "last")]
    assert settings == ["", "alpha=0", "beta=0", "temperature=4"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema_version": 0}'])
def test_an_unreadable_result_costs_only_itself(tmp_path, content):
    write_run(tmp_path, "kd", 0, 40.0)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text(content)
    found = collect([tmp_path])
    assert [row["all"] for row in summary_rows(found.cells, "last")] == [40.0]
    [line] = found.incomplete
    assert line.startswith(f"unreadable: {tmp_path}/bad/result.json")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_an_unreadable_status_costs_only_itself(tmp_path, content):
    write_run(tmp_path, "kd", 0, 40.0)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "status.json").write_text(content)
    found = collect([tmp_path])
    assert [row["all"] for row in summary_rows(found.cells, "last")] == [40.0]
    [line] = found.incomplete
    assert line.startswith(f"unreadable: {tmp_path}/bad/status.json")


def test_no_run_at_all_says_so(tmp_path):
    assert markdown(collect([tmp_path]).cells, "last") == "no finished run"


def test_a_row_says_that_its_method_trained_on_the_validation_images(tmp_path):
    write_run(tmp_path, "kd", 0, 41.0)
    file = write_run(tmp_path, "bikd", 0, 40.0) / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"learned_from_validation": True}))
    settings = {row["method"]: row["settings"] for row in summary_rows(collect([tmp_path]).cells, "last")}
    assert settings == {"bikd": "(trained on the validation images too)", "kd": ""}
