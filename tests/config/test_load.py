"""Every YAML composes and binds; every mistake is named, with its key and the choices, before anything is trained."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltkd.commands import train
from ltkd.config.identity import student_run, teacher_run
from ltkd.config.load import load_config
from ltkd.errors import UserError
from ltkd.machine import resolve_device

from ..conftest import PROJECT, compose_values

CONF = PROJECT / "conf"
OPTIONS = [
    (group, path.stem)
    for group in ("dataset", "teacher", "student", "method", "recipe", "experiment")
    for path in sorted((CONF / group).glob("*.yaml"))
    # these need files: other tests make them
    if path.stem not in ("pack", "image_folder", "image_list", "tiny_imagenet_lt100")
]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_every_option_composes_and_binds(group, option):
    data_set = ["dataset=cifar100_lt"] if option == "strong" else []  # cutout leaves nothing of images of 8 pixels
    values = compose_values(f"{group}={option}", *data_set, "teacher.seed=3")
    config = load_config(values)
    assert config.teacher.seed == 3
    if group in ("teacher", "student"):
        assert getattr(config, group).name.split("/")[0] == option
    elif group != "experiment":
        assert values[group]["name"] == option


MISTAKES = {
    "method.temperature=0": "method.temperature: should be greater than 0, got 0",
    "method.alpha=-1": "method.alpha: should be greater than or equal to 0, got -1",
    "method.alpha=much": "method.alpha: should be a valid number, got 'much'",
    "+method.temprature=2": "method.temprature: unknown key (did you mean 'temperature'?)",
    "~method.beta": "method.beta: missing",
    "method.rebalancing=btach": "method.rebalancing: should be 'batch', 'running', 'dataset' or 'none', got 'btach'",
    "method.name=ltkdd": "method.name: unknown name 'ltkdd' (did you mean 'ltkd'?); choose one of: ",
    "method.groups=11": "method.groups: should be at most the number of classes (10), got 11",
    "dataset.imbalance_factor=0.5": "dataset.imbalance_factor: should be greater than or equal to 1, got 0.5",
    "dataset.imbalance=linear": "dataset.imbalance: should be 'exponential', 'step' or 'none', got 'linear'",
    "dataset.groups=thirds": "unknown name 'thirds'",
    "dataset.groups={name: ranges}": "dataset.groups.boundaries: missing",
    "dataset.mean=[0.1,0.2]": "dataset.mean",
    "dataset.mean=[125.3]": "dataset.mean: 125.3 is not of pixel values in 0 .. 1",
    "dataset.std=[63]": "dataset.std: 63 is not of pixel values in 0 .. 1",
    "teacher.checkpoint_key=ema": "teacher.checkpoint_key: is about a file of weights",
    "teacher.class_names=[a]": "teacher.class_names: is about a file of weights",
    "student.name=torchvision/resnet19": "student.name: unknown name 'torchvision/resnet19'; did you mean one of: ",
    "student.name=resnet9": "unknown name 'resnet9' (did you mean",
    "teacher.name=resnet9": "unknown name 'resnet9' (did you mean",
    "+student.arguments.depth=9": "student.arguments.depth: unknown key",
    "student.task_loss=focl": "unknown name 'focl' (did you mean 'focal'?)",
    "student.task_loss={name: ldam, deferred: 1.5}": "student.task_loss.deferred: should be less than or equal to 1",
    "student.task_loss={name: logit_adjusted, tua: 1.0}": "student.task_loss.tua: unknown key (did you mean 'tau'?)",
    "teacher.checkpoint=nowhere.pt": "teacher.checkpoint: no such file: nowhere.pt",
    "method=bkd method.effective_number_beta=1": "method.effective_number_beta: should be less than 1, got 1",
    "recipe.epochs=2.5": "recipe.epochs: should be a valid integer, got 2.5",
    "recipe.batch_size=1": "recipe.batch_size: should be greater than or equal to 2, got 1",
    "+student.recipe.epoch=5": "student.recipe.epoch: unknown key (did you mean 'epochs'?)",
    "recipe.schedule=step recipe.milestones=[0.5]": "recipe.milestones: needs one decay factor each",
    "recipe.sampling=balanced": "recipe.sampling: unknown name 'balanced' (did you mean 'class_balanced'?)",
    "+student.recipe.sampling=balanced": "student.recipe.sampling: unknown name 'balanced'",
    "recipe.sampling={name: power}": "recipe.sampling.q: missing",
    "device=cuda:99": "device: 'cuda:99' is not there; this machine has: auto, cpu",
    "device=gpu": "device: 'gpu' is not there",
    "study=../elsewhere": "study: should name a folder below output_root",
    "precision.autocast=float16": "precision.autocast: should be 'float32' or 'bfloat16', got 'float16'",
    "wandb.mode=maybe": "wandb.mode: should be",
    "dataset.name=a/b": "dataset.name: should be a plain name",
    "+student.arguments.num_classes=7": "student.arguments.num_classes: is not set here",
    "method.name=[1]": "method.name: should be a name, got [1]",
    "student.task_loss={name: [a]}": "student.task_loss.name: should be a name, got ['a']",
    "seed=-1": "seed: should be greater than or equal to 0, got -1",
}


@pytest.mark.parametrize("override", MISTAKES, ids=lambda value: value)
def test_a_mistake_is_one_error_that_names_the_key(override):
    overrides = override.split(" ") if " recipe" in override or " method" in override else [override]
    with pytest.raises(UserError) as caught:
        load_config(compose_values(*overrides))
    assert "\n" not in str(caught.value)
    assert MISTAKES[override] in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=kdd", "method: unknown name 'kdd' (did you mean 'kd'?); choose one of: abkd, "),
        ("recipe.epoch=3", "recipe.epoch: unknown key (did you mean 'epochs'?); known: accumulation, "),
        ("datset=cifar100_lt", "datset: unknown key (did you mean 'dataset'?); known: cache, "),
    ],
)
def test_what_cannot_be_composed_is_one_line(override, message, monkeypatch, capsys):
    """In scripts, which compose by themselves, and in train.py, where Hydra does and would say a page."""
    with pytest.raises(UserError) as caught:
        compose_values(override)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("sys.argv", ["train.py", override])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert message in shown.out + shown.err
    assert (shown.out + shown.err).count("\n") == 1


def test_an_interpolation_of_nothing_is_one_line_under_its_key():
    with pytest.raises(UserError, match=r"^seed: Interpolation key 'nowhere' not found$"):
        compose_values("seed=${nowhere}")


def test_all_mistakes_are_reported_at_once():
    overrides = ["method.temperature=-1", "recipe.epochs=many", "student.name=resnet9", "dataset.imbalance_factor=0"]
    with pytest.raises(UserError) as caught:
        load_config(compose_values(*overrides))
    message = str(caught.value)
    assert message.startswith("4 errors in the configuration:")
    for key in ("method.temperature", "recipe.epochs", "resnet9", "dataset.imbalance_factor"):
        assert key in message


def test_a_network_may_override_the_recipe_for_itself():
    config = load_config(compose_values("+teacher.recipe.epochs=7", "recipe.epochs=3"))
    assert config.recipe_of(config.teacher).epochs == 7
    assert config.recipe_of(config.student).epochs == 3


@pytest.mark.parametrize(
    ("factor", "value", "expected"),
    [(0.2, 0.05, 0.01), (0.2, 0.1, 0.02), (3, 0.1, 0.3), (0.5, 4, 2.0), (2, "fast", "fast")],
)
def test_times_is_the_product_as_one_would_write_it(factor, value, expected):
    tree = OmegaConf.create({"rate": value, "own": f"${{times:{factor},${{rate}}}}"})
    assert tree.own == expected


@pytest.mark.parametrize("value", ["fast", "null"])
def test_a_rate_that_is_no_number_is_named_where_a_network_scales_it(value):
    with pytest.raises(UserError, match=r"recipe.learning_rate: should be a valid number"):
        load_config(compose_values("recipe=mdistiller", "student=mobilenetv2", f"recipe.learning_rate={value}"))


def test_auto_device_is_always_there():
    assert resolve_device("auto").type in ("cpu", "cuda")


def identities(*overrides):
    config = load_config(compose_values(*overrides))
    return student_run(config), teacher_run(config)


def test_a_teacher_is_shared_by_what_does_not_make_it():
    _, teacher = identities()
    for override in ("seed=5", "method=kd", "student=resnet14", "student.task_loss=balanced_softmax", "study=other",
                     "wandb.mode=disabled", "data_root=/elsewhere", "run.progress=none",
                     "dataset.groups=oltr"):  # fmt: skip
        assert identities(override)[1].directory == teacher.directory, override
    for override in ("teacher.seed=5", "dataset.split_seed=1", "dataset.imbalance_factor=10", "recipe.epochs=61",
                     "precision.autocast=bfloat16", "teacher.task_loss=balanced_softmax"):  # fmt: skip
        assert identities(override)[1].directory != teacher.directory, override


def test_a_student_depends_on_its_teacher_unless_the_method_has_none():
    assert identities("teacher.seed=1")[0].hash != identities()[0].hash
    without = identities("method=ce")[0]
    assert identities("method=ce", "teacher.seed=1", "teacher=resnet32")[0].directory == without.directory


def test_groups_are_part_of_a_run_whose_method_reads_them():
    for overrides in (["method=kd"], ["method=ce"], ["method=ltkd", "method.groups=3"]):
        assert identities(*overrides, "dataset.groups=oltr")[0].hash == identities(*overrides)[0].hash
    assert identities("method=ltkd", "dataset.groups=oltr")[0].hash != identities("method=ltkd")[0].hash


def test_cells_leave_out_seeds_and_nothing_else():
    cell = identities()[0].names["cell"]
    assert identities("seed=1", "teacher.seed=4")[0].names["cell"] == cell
    assert identities("method.alpha=9")[0].names["cell"] != cell
    assert identities("dataset.split_seed=1")[0].names["cell"] != cell


def test_the_directory_tells_what_it_holds():
    student, teacher = identities("study=a/b", "seed=3", "dataset.imbalance=step")
    assert student.directory == Path(f"outputs/a/b/digits_lt-step-if20/resnet20-resnet8/ltkd/s3-{student.hash}")
    assert teacher.directory == Path(f"outputs/teachers/digits_lt-step-if20/resnet20/s0-{teacher.hash}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["method.temperature=2", "method.alpha=1"], ["method.temperature=2.0", "method.alpha=1.0"]),
        (["student.task_loss=logit_adjusted"], ["student.task_loss={name: logit_adjusted, tau: 1}"]),
        (["student.task_loss=ce"], ["student.task_loss={name: ce}"]),
        (["+student.recipe.learning_rate=1"], ["+student.recipe.learning_rate=1.0"]),
        (["dataset.imbalance_factor=10"], ["dataset.imbalance_factor=10.0"]),
        (["dataset.groups=rank_thirds"], ["dataset.groups={name: rank_thirds}"]),
    ],
)
def test_what_means_the_same_is_the_same_run(one, other):
    assert identities(*one)[0].hash == identities(*other)[0].hash


@pytest.mark.parametrize(("overrides", "epochs"), [([], 1), (["recipe=mdistiller"], 5), (["run.evaluate_every=3"], 3)])
def test_long_recipes_are_evaluated_less_often(overrides, epochs):
    assert load_config(compose_values(*overrides)).run.evaluate_every == epochs
