"""Tuning: validation images alone decide, and the preset that is written means what was chosen."""

import shutil
import subprocess
import sys

import pytest
import yaml

from ltkd.config import compose as composition
from ltkd.config.compose import CONFIGURATION, compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.errors import UserError
from ltkd.files import write_json
from ltkd.results.read import SCHEMA_VERSION
from ltkd.sweep.tuning import choose, make_tuning, preset_name, preset_text

from ..conftest import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import tune as tune_script

GRID = ["method=kd", "method.weight=1,4,9", "method.temperature=2,4", "seed=0,1", "dataset.validation_per_class=10"]


@pytest.fixture
def make(tmp_path):
    return lambda *overrides: make_tuning([f"output_root={tmp_path}", "teacher=resnet8", "device=cpu", *overrides])


def write_results(tuning, validation):
    """A result for each run: validation(weight, temperature, seed) and, as the test accuracy, 100 less it."""
    for setting in tuning.settings:
        weight, temperature = (float(value) for value in setting.values.values())
        for job in setting.jobs:
            value = validation(weight, temperature, job.config.seed)
            last = {"all": 100 - value, "validation": {"all": value}}
            accuracy = {"last": last, "best": {"all": 100 - value}}
            result = {"schema_version": SCHEMA_VERSION, "accuracy": accuracy, "validation_counts": [10] * 9 + [8]}
            write_json(job.run.directory / "result.json", result)


def test_the_grid_is_the_product_of_what_has_several_values(make):
    tuning = make(*GRID)
    assert len(tuning.settings) == 6
    assert tuning.settings[1].values == {"method.weight": "1", "method.temperature": "4"}
    assert [job.config.seed for job in tuning.settings[0].jobs] == [0, 1]
    assert {job.config.study for job in tuning.jobs} == {"tuning"}
    assert {job.config.study for job in make(*GRID, "study=mine").jobs} == {"mine"}


def test_without_a_grid_it_is_that_of_the_method(make):
    tuning = make("method=ltkd", "dataset.validation_per_class=10", "seed=3")
    keys = yaml.safe_load((CONFIGURATION / "tuning" / "ltkd.yaml").read_text())
    assert tuning.keys == list(keys)
    assert {job.config.seed for job in tuning.jobs} == {3}
    with pytest.raises(UserError, match=r"ce has no grid of its own .*there are: dkd, kd, ltkd"):
        make("method=ce", "dataset.validation_per_class=10")


@pytest.mark.parametrize("path", sorted((CONFIGURATION / "tuning").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grid_composes(make, path):
    make(f"method={path.stem}", "dataset.validation_per_class=10")


def test_without_validation_images_it_is_refused(make):
    with pytest.raises(UserError, match=r"dataset.validation_per_class: 0 holds no images out"):
        make("method=kd", "method.weight=1,4")
    with pytest.raises(UserError, match=r"dataset.imbalance_factor: cannot be tuned"):
        make("method=kd", "dataset.imbalance_factor=10,20", "dataset.validation_per_class=10")


def test_listed_validation_images_are_some(make, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{number}.png {number % 3}\n" for number in range(6)))
    for number in range(6):
        (tmp_path / f"{number}.png").touch()
    lists = [f"dataset.{part}_list={tmp_path}/list.txt" for part in ("train", "validation", "test")]
    tuning = make("dataset=image_list", f"dataset.path={tmp_path}", *lists, "method=kd", "method.weight=1,4")
    assert len(tuning.settings) == 2


def test_the_highest_mean_on_validation_is_chosen_and_the_test_part_is_not_asked(make):
    tuning = make(*GRID)
    write_results(tuning, lambda weight, temperature, seed: 40 + weight - temperature + seed * (weight == 4))
    result = choose(tuning)
    assert result.chosen.values == {"method.weight": "9", "method.temperature": "2"}  # worst on the test part
    assert [sum(one.accuracies) / 2 for one in result.judged] == [47.0, 45.0, 42.5, 40.5, 39.0, 37.0]
    second, third = result.judged[1:3]
    assert (second.differences, second.margin) == ([-2.0, -2.0], 0.0)
    assert third.differences == [-5.0, -4.0]
    # the standard error is .5 (std of -5, -4 is .7071, over sqrt(2)), Student's t of one degree of freedom 12.706
    assert third.margin == pytest.approx(6.353, abs=0.001)
    text = "\n".join(result.lines())
    assert "98 validation images" in text
    assert "-4.50 ± 6.35" in text
    assert "sampling error is not in it" in text


def test_results_of_before_do_not_count_their_validation_images(make):
    tuning = make("method=kd", "method.weight=1,4", "method.temperature=2,4", "dataset.validation_per_class=10")
    write_results(tuning, lambda weight, temperature, seed: 40)
    for job in tuning.jobs:
        result = job.run.files.result
        result.write_text(result.read_text().replace("validation_counts", "unknown"))
    assert choose(tuning).lines()[0].startswith("Accuracy in % on the validation images")


def test_of_equal_settings_the_first_is_chosen_and_one_seed_has_no_margin(make):
    tuning = make("method=kd", "method.weight=1,4", "method.temperature=2,4", "dataset.validation_per_class=10")
    write_results(tuning, lambda weight, temperature, seed: 50 - 20 * (weight == 4) - 5 * (temperature == 4))
    result = choose(tuning)
    assert result.chosen.values == {"method.weight": "1", "method.temperature": "2"}
    assert {one.margin for one in result.judged} == {None}
    assert any(line.endswith("| -5.00        |") for line in result.lines())
    write_results(tuning, lambda weight, temperature, seed: 50)
    assert choose(tuning).chosen is tuning.settings[0]


def test_the_presets_name_has_data_set_pair_and_method(make):
    names = {
        preset_name(make("method=kd", "method.weight=1,4", "dataset.validation_per_class=10", *overrides))
        for overrides in ([], ["student=resnet14"], ["teacher=resnet14"], ["dataset.imbalance_factor=12.5"])
    }
    assert names == {
        "tuned_digits_lt_if20_resnet8_resnet8_kd", "tuned_digits_lt_if20_resnet8_resnet14_kd",
        "tuned_digits_lt_if20_resnet14_resnet8_kd", "tuned_digits_lt_if12_5_resnet8_resnet8_kd",
    }  # fmt: skip


def test_a_missing_result_is_no_choice(make):
    tuning = make(*GRID)
    write_results(tuning, lambda weight, temperature, seed: 40)
    (tuning.jobs[3].run.directory / "result.json").unlink()
    with pytest.raises(UserError, match=r"result\.json"):
        choose(tuning)


def test_the_preset_composes_what_was_chosen(make, tmp_path, monkeypatch):
    tuning = make(
        *GRID, "experiment=cifar100_lt_cpu", "recipe.epochs=7", "+student.recipe.momentum=0.8", "run.threads=1",
        "dataset.groups={name: ranges, boundaries: [36, 71]}",
    )  # fmt: skip
    write_results(tuning, lambda weight, temperature, seed: 40 + weight + temperature)
    result = choose(tuning)
    configuration = tmp_path / "conf"
    shutil.copytree(CONFIGURATION, configuration)
    monkeypatch.setattr(composition, "CONFIGURATION", configuration)
    path = configuration / "experiment" / "tuned_by_a_test.yaml"
    path.write_text(preset_text(result, path.stem, "the command"))
    values = compose_values(f"experiment={path.stem}", "seed=1")
    chosen = compose_values(*result.chosen.jobs[1].overrides, "dataset.validation_per_class=0")
    assert student_run(load_config(values)).identity == student_run(load_config(chosen)).identity
    assert values["method"] == {"name": "kd", "task_weight": 0.1, "weight": 9, "temperature": 4}
    assert values["dataset"]["name"] == "cifar100_lt"
    assert values["dataset"]["validation_per_class"] == 0
    assert values["dataset"]["groups"] == {"name": "ranges", "boundaries": [36, 71]}
    assert (values["recipe"]["epochs"], values["student"]["recipe"]) == (7, {"momentum": 0.8})
    assert (values["output_root"], values["run"]["threads"], values["study"]) == ("outputs", "auto", "cifar100_lt_cpu")


def test_a_file_that_is_there_is_left_alone(tmp_path, capsys):
    preset = tmp_path / "tuned.yaml"
    preset.write_text("seed: 1\n")
    arguments = ["method=kd", "method.weight=1,4", "dataset.validation_per_class=10", f"output={preset}"]
    assert tune_script.main(arguments) == 2
    assert "is there already; add --overwrite or name another file" in capsys.readouterr().err
    assert preset.read_text() == "seed: 1\n"


def test_the_command_from_grid_to_preset(tmp_path):
    preset = tmp_path / "tuned.yaml"
    command = [
        sys.executable, "scripts/tune.py", f"output_root={tmp_path}/outputs", "method=ce", "student.task_loss=ce",
        "recipe.learning_rate=0.05,0.00001", "dataset.validation_per_class=10", "recipe.epochs=2", "device=cpu",
        "recipe.warmup_epochs=0", "wandb.mode=disabled", f"output={preset}", "jobs=2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load(preset.read_text())["recipe"]["learning_rate"] == 0.05
    assert "| 0.05" in done.stdout
    assert f"written: {preset}" in done.stdout
