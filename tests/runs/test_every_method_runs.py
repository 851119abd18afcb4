"""Every kind of method through whole tiny runs on the digits: a method of a new kind joins by itself."""

import json

import pytest
import torch

from ltkd.config.identity import student_run
from ltkd.loop.step import Step, StepInput
from ltkd.methods import Method, method_class
from ltkd.runs.build import TrainedTeacher, new_method, new_model
from ltkd.runs.run import run_experiment
from ltkd.runs.train import make_training
from ltkd.setup import prepare

from ..methods.kinds import representatives
from .killing import killed_after
from .test_fit import metrics_of, numbers

KINDS = representatives()


@pytest.fixture(scope="session")
def teachers(tmp_path_factory):
    """One place for the teachers of all these tests: each is trained once."""
    return tmp_path_factory.mktemp("every_method")


@pytest.mark.parametrize("name", KINDS)
def test_a_run_on_digits_ends_and_resumes_to_the_same_bit(make_config, teachers, name):
    def config(study):
        return make_config(f"method={name}", f"study={study}", f"output_root={teachers}", "recipe.batch_size=100")

    whole, halved = config("whole"), config("halved")
    result = run_experiment(whole)
    lines = metrics_of(student_run(whole).directory)
    assert len(lines) == 3
    assert all(value == value for line in lines for value in line.values())  # no NaN
    terms = [key for key in lines[-1] if key.startswith("train/loss/")]
    assert len(terms) > 1 or not whole.needs_teacher
    assert result["parameters"] > 0

    with killed_after(2):
        run_experiment(halved)
    directory = student_run(halved).directory
    assert student_run(halved).files.checkpoint.exists()
    torch.manual_seed(98765)  # whatever happened in between
    resumed = run_experiment(halved)
    assert numbers(resumed) == numbers(result)
    assert metrics_of(directory) == lines
    assert json.loads((directory / "status.json").read_text())["status"] == "finished"


PAIRS = {"homogeneous": ("resnet20", "resnet8"), "heterogeneous": ("wrn_16_2", "shufflenetv1")}


def reads_features(name):
    """True where networks of other shapes make a difference: logits look alike."""
    needs = method_class(name).needs
    return needs.stages or needs.embedding or method_class(name).adapt_student is not Method.adapt_student


def one_batch(setup):
    """The input of a step on 48 images; the second view is the first, an augmented one would do as well."""
    choices = setup.train.draw_epoch(torch.Generator().manual_seed(0)).take(slice(0, 48))
    return StepInput(choices, second_view=setup.train.batch_of(choices).images)


def step_of(setup, teacher, further=()):
    """The training step of the configuration, with networks that have just been made."""
    config = setup.config
    student = new_model(setup, config.student, config.seed)
    method = new_method(setup, student, teacher, len(further)).train()
    model = method.adapt_student(student).train()
    training = make_training(setup, student_run(config), model, method, teacher, further)
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}, *method.parameter_groups()]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=3e-3)  # whatever the terms' size
    method.start_epoch(training.recipe.epochs)  # after all warm-ups
    return Step(training, optimizer)


@pytest.fixture(scope="module")
def knowing_teachers():
    """By pair and training images: a teacher that has learned the batch by heart, made once."""
    return {}


def knowing_teacher(setup, pair, knowing_teachers):
    known = pair, setup.data.split.sha256  # a method with images held out has another batch
    if known not in knowing_teachers:
        config = setup.config
        torch.manual_seed(0)
        network, batch = new_model(setup, config.teacher, 0).train(), one_batch(setup).batch(setup.train)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        for _ in range(80):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(batch.images).logits, batch.labels).backward()
            optimizer.step()
        assert (network.eval()(batch.images).logits.argmax(1) == batch.labels).float().mean() > 0.95
        knowing_teachers[known] = network.requires_grad_(False)
    return TrainedTeacher(knowing_teachers[known], None)


@pytest.mark.parametrize(
    ("name", "pair"),
    [*((name, "homogeneous") for name in KINDS), *((name, "heterogeneous") for name in KINDS if reads_features(name))],
)
def test_one_batch_is_learned_by_heart(make_config, knowing_teachers, name, pair):
    teacher_name, student_name = PAIRS[pair]
    config = make_config(f"method={name}", f"teacher={teacher_name}", f"student={student_name}", "recipe.batch_size=48")
    setup = prepare(config)
    teacher = knowing_teacher(setup, pair, knowing_teachers) if config.needs_teacher else None
    step, batch = step_of(setup, teacher, [teacher] * len(config.extra_teachers)), one_batch(setup)
    accuracies = []
    for _ in range(120):
        accuracies.append(step.update(batch)["accuracy"].item())
        if min(accuracies[-3:]) > 97 and len(accuracies) > 3:
            break
    assert min(accuracies[-3:]) > 90, accuracies[-10:]
