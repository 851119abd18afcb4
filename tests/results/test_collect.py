"""Tables from result.json files made by hand: means, deviations, what differs, what is missing."""

import json
import math
import re

import pytest

from ltkd.errors import UserError
from ltkd.results.collect import collect
from ltkd.results.read import SCHEMA_VERSION, run_table
from ltkd.results.summary import comma_separated, markdown, summary_rows


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


def test_students_of_a_teacher_that_was_trained_twice_are_never_mixed(tmp_path):
    for seed, weights in enumerate(("1" * 64, "1" * 64, "2" * 64, None)):
        path = write_run(tmp_path, "kd", seed, 40.0 + seed) / "result.json"
        result = json.loads(path.read_text())
        teacher = {key: result[key] for key in ("accuracy", "seed", "evaluate_every")}
        teacher |= {"hash": "t", "cell": "c", "directory": "teachers/t", "weights_sha256": weights}
        path.write_text(json.dumps(result | {"teacher_result": teacher, "directory": f"run{seed}"}))
    found = collect([tmp_path])
    rows = {row["settings"]: row for row in summary_rows(found.cells, "last") if row["method"] == "kd"}
    assert {settings: (row["n"], row["all"]) for settings, row in rows.items()} == {
        "teacher.weights=11111111": (2, 40.5), "teacher.weights=22222222": (1, 42.0),
        "teacher.weights=unknown": (1, 43.0),
    }  # fmt: skip
    [line] = [line for line in found.notes if line.startswith("teacher t")]
    assert line.endswith("different weights: 11111111 is of run0 and 1 more; 22222222 is of run2")


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


def test_a_run_that_cannot_be_regrouped_is_named_by_its_folder(tmp_path):
    folders = [write_run(tmp_path, method, 0, 40.0) for method in ("kd", "ltkd")]

    def regroup(run, files):
        if run["method"] == "kd":
            raise UserError("dataset.groups.boundaries: past the last class")
        return run

    collected = collect([tmp_path], regroup)
    assert [cell.names["method"] for cell in collected.cells] == ["ltkd"]
    assert collected.incomplete == [f"{folders[0]}: dataset.groups.boundaries: past the last class"]


def test_no_run_at_all_says_so(tmp_path):
    assert markdown(collect([tmp_path]).cells, "last") == "no finished run"


def test_a_row_says_that_its_method_trained_on_the_validation_images(tmp_path):
    write_run(tmp_path, "kd", 0, 41.0)
    file = write_run(tmp_path, "bikd", 0, 40.0) / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"learned_from_validation": True}))
    settings = {row["method"]: row["settings"] for row in summary_rows(collect([tmp_path]).cells, "last")}
    assert settings == {"bikd": "(trained on the validation images too)", "kd": ""}


def test_the_mean_of_the_classes_stands_beside_where_the_images_are_not_balanced(tmp_path):
    """Only there: with as many images of each class the two are one."""
    for method, mean_per_class in (("kd", 40.0), ("dkd", 25.0)):
        path = write_run(tmp_path / method, method, 0, 40.0) / "result.json"
        result = json.loads(path.read_text())
        result["accuracy"]["last"]["mean_per_class"] = mean_per_class
        path.write_text(json.dumps(result))
    assert "mean per class" not in markdown(collect([tmp_path / "kd"]).cells, "last")
    rows = {row["method"]: row for row in summary_rows(collect([tmp_path]).cells, "last")}
    assert [rows[method]["mean per class"] for method in ("dkd", "kd")] == [25.0, 40.0]
    assert list(rows["kd"]).index("mean per class") == list(rows["kd"]).index("all") + 2  # before the groups


def test_a_second_correction_is_marked(tmp_path):
    """Where only the training evened the classes out, and only in tables of a correction."""
    for method in ("kd", "bkd"):
        path = write_run(tmp_path, method, 0, 40.0) / "result.json"
        result = json.loads(path.read_text())
        result["post_hoc"] = {
            "logit_adjusted": {"tau": 1.0, "chosen_by": "default", "test": result["accuracy"]["last"]}
        }
        path.write_text(json.dumps(result))
    cells = collect([tmp_path]).cells
    shown = {row["method"]: row["settings"] for row in summary_rows(cells, "logit_adjusted")}
    assert shown == {"kd": "", "bkd": "(second correction, after method=bkd)"}
    shown = {row["method"]: row["settings"] for row in summary_rows(cells, "corrected_once")}
    assert shown == {"kd": "(logits adjusted)", "bkd": "(corrected by method=bkd)"}
    assert not any(row["settings"] for row in summary_rows(cells, "last"))


def test_a_run_s_own_table_says_what_is_corrected(tmp_path):
    tables = []
    for method in ("kd", "bkd"):
        result = json.loads((write_run(tmp_path, method, 0, 40.0) / "result.json").read_text())
        corrected = {"tau": 1.0, "chosen_by": "default", "test": result["accuracy"]["last"] | {"all": 44.0}}
        facts = {"groups": [0, 1, 2], "class_counts": [9, 5, 1], "teacher_result": None, "directory": "there"}
        tables.append(run_table(result | facts | {"post_hoc": {"logit_adjusted": corrected}}))
    kd, bkd = tables
    assert re.search(r"\| student small, logits adjusted \(tau 1, default\) +\| kd +\| 44\.00", kd)
    assert re.search(r"\| student small, corrected by method=bkd +\| bkd +\| 40\.00", bkd)
    assert "adjusted" not in bkd  # a second correction is no headline


def change(directory, /, **changes):
    """Changes a run's result; `identity` by section."""
    path = directory / "result.json"
    result = json.loads(path.read_text())
    for section, values in changes.pop("identity", {}).items():
        result["identity"][section] = values
    path.write_text(json.dumps(result | changes))


def settings_of(cells, kind="last"):
    return {row["method"]: row["settings"] for row in summary_rows(cells, kind)}


def test_settings_outside_of_the_methods_are_named_between_methods(tmp_path):
    recipes = {"kd": {"epochs": 10}, "dkd": {"epochs": 10}, "ltkd": {"epochs": 30, "augmentation": "randaugment"}}
    for method, recipe in recipes.items():
        dataset = {"mean": [0.5] if method == "dkd" else [0.3]}
        change(write_run(tmp_path, method, 0, 40.0), identity={"recipe": recipe, "dataset": dataset})
    found = collect([tmp_path])
    assert settings_of(found.cells) == {
        "kd": "", "dkd": "dataset.mean=[0.5]", "ltkd": "recipe.augmentation=randaugment recipe.epochs=30",
    }  # fmt: skip
    note = "dataset.mean=[0.3] recipe.augmentation=default recipe.epochs=10"
    assert found.notes == [f"d-if100, students, where a row does not say otherwise: {note}"]
    assert note in markdown(found.cells, "last", found.notes)


def test_a_method_without_a_teacher_has_none_of_its_settings(tmp_path):
    for method, teacher in {"ce": None, "kd": {"seed": 0, "task_loss": "ce"}}.items():
        change(write_run(tmp_path, method, 0, 40.0), identity={"teacher": teacher, "task_loss": "ce"})
    assert settings_of(collect([tmp_path]).cells) == {"ce": "", "kd": ""}


def test_groups_of_two_policies_are_never_in_one_column(tmp_path):
    for method, policy in {"kd": "rank_thirds", "ltkd": "mine"}.items():
        change(write_run(tmp_path, method, 0, 40.0), identity={"dataset": {"groups": policy}}, groups=[0, 1, 2])
    rows = {row["method"]: row for row in summary_rows(collect([tmp_path]).cells, "last")}
    assert "head" not in rows["kd"]
    assert (rows["kd"]["head (rank_thirds)"], rows["kd"]["head (mine)"]) == (80.0, None)
    assert (rows["ltkd"]["head (rank_thirds)"], rows["ltkd"]["head (mine)"]) == (None, 80.0)


def test_classes_that_moved_between_groups_of_one_policy_are_told_apart(tmp_path):
    for seed, groups in enumerate(([0, 0, 1, 2], [0, 1, 1, 2])):
        change(write_run(tmp_path, "kd", seed, 40.0), identity={"dataset": {"groups": "mine"}}, groups=groups)
    rows = summary_rows(collect([tmp_path]).cells, "last")
    assert sorted(row["settings"] for row in rows) == ["dataset.groups=mine 1/2/1", "dataset.groups=mine 2/1/1"]


@pytest.mark.parametrize("part", ["train_data_sha256", "validation_data_sha256", "test_data_sha256"])
def test_runs_on_other_images_are_rows_of_their_own(tmp_path, part):
    for seed, images in enumerate(("a", "a", "b")):
        directory = write_run(tmp_path, "kd", seed, 40.0 + seed)
        (directory / "manifest.json").write_text(json.dumps({part: images}))
    rows = summary_rows(collect([tmp_path]).cells, "last")
    assert sorted((row["n"], row["all"]) for row in rows) == [(1, 42.0), (2, 40.5)]
    assert len({row["settings"] for row in rows}) == 2
    assert "images=" in rows[0]["settings"] + rows[1]["settings"]


def test_the_order_of_the_folders_changes_nothing(tmp_path):
    for folder, accuracy in {"b": 40.0, "a": 41.0}.items():
        change(write_run(tmp_path / folder, "kd", 0, accuracy), directory=folder)
        write_run(tmp_path / folder, "dkd", 0 if folder == "a" else 1, accuracy)
    found = [collect([tmp_path / folder for folder in order]) for order in ("ab", "ba")]
    first, second = (markdown(one.cells, "last", one.notes) for one in found)
    assert first == second
    assert found[0].incomplete == found[1].incomplete
    assert "two results of kdNone00 differ in all, per_group: a (41.00), which counts, and b (40.00)" in first


@pytest.mark.parametrize(
    ("commits", "expected"),
    [
        (["one", "one"], []),
        (["one", "two"], ["different code in one cell: d-if100 big small kd: one (seed 0); two (seed 1)"]),
        (
            ["one+", "one"],
            ["different code in one cell: d-if100 big small kd: one (seed 1); one, with changes (seed 0)"],
        ),
        (["one+", "one+"], ["perhaps different code in one cell: d-if100 big small kd: one, with changes (seed 0, 1)"]),
    ],
)
def test_different_code_in_one_cell_is_named(tmp_path, commits, expected):
    for seed, commit in enumerate(commits):
        state = {"commit": commit.rstrip("+"), "modified": commit.endswith("+")}
        change(write_run(tmp_path, "kd", seed, 40.0), git=state, sessions=[{"git": state}])
    assert collect([tmp_path]).notes == expected


def test_code_of_an_earlier_session_counts(tmp_path):
    states = [{"commit": commit, "modified": False} for commit in ("one", "two")]
    change(write_run(tmp_path, "kd", 0, 40.0), git=states[1], sessions=[{"git": state} for state in states])
    [note] = collect([tmp_path]).notes
    assert note.endswith("one (seed 0); two (seed 0)")


def test_different_circumstances_in_one_cell_are_named(tmp_path):
    sessions = [[1, 2], [2], [None, 2]]  # of the last one the first number is not known
    for seed, counts in enumerate(sessions):
        trained = [{"device": "cpu (x)", "threads": count} for count in counts]
        change(write_run(tmp_path, "kd", seed, 40.0), sessions=trained, **trained[-1])
    change(write_run(tmp_path, "dkd", 0, 40.0), device="cpu (x)", threads=1)
    change(write_run(tmp_path, "dkd", 1, 40.0), device="NVIDIA H100", threads=8)  # which change nothing there
    for seed, torch in enumerate(("2.9", "2.10")):
        change(write_run(tmp_path, "dist", seed, 40.0), versions={"torch": torch})
    for seed, processes in enumerate(({}, {"ranks": 2})):
        change(write_run(tmp_path, "rkd", seed, 40.0), sessions=[{"device": "cpu (x)", "threads": 1} | processes])
    assert [note for note in collect([tmp_path]).notes if note.startswith("different ")] == [
        "different versions of torch in one cell: d-if100 big small dist: 2.10 (seed 1); 2.9 (seed 0)",
        "different devices in one cell: d-if100 big small dkd: NVIDIA H100 (seed 1); cpu (x) (seed 0)",
        "different numbers of CPU threads in one cell: d-if100 big small kd: 1 (seed 0); 2 (seed 0, 1, 2)",
        "different numbers of processes in one cell: d-if100 big small rkd: 1 (seed 0); 2 (seed 1)",
    ]


def test_rows_over_one_teacher_and_over_several_are_told_apart(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "kd", seed, 40.0)
        write_run(tmp_path, "bkd", seed, 40.0)
    assert collect([tmp_path]).notes == []
    for seed in (0, 1):
        write_run(tmp_path, "dkd", seed, 40.0, teacher_seed=seed)
    write_run(tmp_path, "crd", 0, 40.0)  # of one run, no deviation is shown
    assert collect([tmp_path]).notes == [
        "deviations are not alike: over one teacher's students alone in d-if100 big small bkd, d-if100 big small kd; "
        "over several teachers in d-if100 big small dkd"
    ]


def test_two_results_of_one_hash_say_their_threads_where_these_differ(tmp_path):
    for folder, threads in {"a": 1, "b": 2}.items():
        change(
            write_run(tmp_path / folder, "kd", 0, 40.0 + threads), directory=folder, device="cpu (x)", threads=threads
        )
    [note] = collect([tmp_path]).notes
    assert note.endswith("a (41.00, 1 thread), which counts, and b (42.00, 2 threads)")
