"""Whole tiny runs by several processes: killed, stopped, failed, resumed."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltkd.commands import train
from ltkd.commands.script import Parser, command
from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.step import Step
from ltkd.loop.teacher_cache import TeacherCache
from ltkd.ranks import RankLost, Ranks
from ltkd.runs.parallel import check_ranks, synchronize_batch_norm
from ltkd.runs.run import run_experiment
from ltkd.setup import prepare

from ..methods.kinds import settings_of
from ..methods.problem import build_tiny_method, make_networks
from ..together import run_together
from .test_groups import by_group

PROCESSES = 4
OTHER_GROUPS = "dataset.groups=oltr"
SETTINGS = ("method=crd", "recipe.batch_size=50", "recipe.epochs=2")  # 9 steps an epoch


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def fail():
    raise UserError("image_7.png: damaged")


def run(ranks, config, rank=None, step=None, action=None):
    """The run, in which process `rank` does something at the student's `step`. Returns how it ended, and when."""
    steps, original = [], Step.run

    def counted(self, number):
        if "student" in self.training.label:
            steps.append(number)
            if len(steps) == step and ranks.rank == rank:
                action()
        return original(self, number)

    Step.run = counted
    try:
        result = run_experiment(config, ranks)
        return result["weights_sha256"], [one.get("ranks", 1) for one in result["sessions"]], by_group(result)
    except Interrupted as stop:
        return stop.signal_name, len(steps)
    except UserError as error:
        if not isinstance(error, RankLost):
            ranks.may_tell(str(error))
        return type(error).__name__, str(error), time.time()
    finally:
        Step.run = original


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One place for the teacher of all these tests, who is trained once."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def config_of(make_config, outputs):
    return lambda study, *others: make_config(*SETTINGS, f"study={study}", f"output_root={outputs}", *others)


def test_killed_and_stopped_in_one_process_the_same_command_ends_with_the_same_weights(config_of):
    """And where the last command asks for other groups, figures are given in these, and the run keeps its own."""
    weights, sessions, of_thirds = one_of(run_together(PROCESSES, run, config_of("whole")))
    assert sessions == [PROCESSES]
    in_other_groups = run_experiment(config_of("whole", OTHER_GROUPS))
    assert in_other_groups["weights_sha256"] == weights

    config, start = config_of("stopped"), time.time()
    ends = run_together(PROCESSES, run, config, 2, 13, die)
    assert ends.pop(2) is None
    for kind, message, when in ends:
        assert kind == "RankLost"
        assert "the same command goes on" in message
        assert when - start < 300  # and not days, which the processes are patient
    files = student_run(config).files
    assert files.checkpoint.exists()
    assert "another process of this run ended" in read_json(files.status)["error"]

    assert one_of(run_together(PROCESSES, run, config, 3, 3, ask_to_stop)) == ("SIGTERM", 3)
    ended = one_of(run_together(PROCESSES, run, config_of("stopped", OTHER_GROUPS)))
    assert ended == (weights, sessions, by_group(in_other_groups))
    assert by_group(read_json(files.result)) == of_thirds  # which it was begun with


def one_of(ends):
    assert ends == ends[:1] * len(ends)
    return ends[0]


def test_an_error_in_one_process_ends_all_with_its_message_and_fewer_may_go_on(config_of):
    config = config_of("failed", "method=kd", "cache.mode=fill", "recipe.accumulation=2")
    ends = run_together(2, run, config, 1, 13, fail)
    assert ends[1][:2] == ("UserError", "image_7.png: damaged")
    status = read_json(student_run(config).files.status)
    assert status["status"] == "failed"
    assert "rank 1: image_7.png: damaged" in status["error"]
    result = run_experiment(config)  # one process
    assert [one.get("ranks", 1) for one in result["sessions"]] == [2, 1]

    (about,) = teacher_run(config).files.logits.glob("*/about.json")  # both filled the cache
    shape = {key: value for key, value in read_json(about).items() if key in ("num_entries", "num_classes", "dtype")}
    settings = {k: v for k, v in read_json(about).items() if k not in (*shape, "version", "complete")}
    cache = TeacherCache(about.parent.parent, settings, **shape)
    assert cache.folder == about.parent
    assert cache.is_complete
    assert cache.read(np.arange(shape["num_entries"]))[1].all()


def test_what_is_not_finite_is_said_by_all_with_its_term(config_of):
    config = config_of("diverged", "method=ce", "recipe.learning_rate=1e30", "recipe.augmentation=mixup")
    for kind, message, _ in run_together(2, run, config):
        assert kind == "UserError"
        assert "loss term" in message
    assert "loss term" in read_json(student_run(config).files.status)["error"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["recipe.batch_size=6"], "recipe.batch_size: 4 processes need at least two images of a batch each, 8, got 6"),
        (["+teacher.recipe.batch_size=6"], "recipe.batch_size: 4 processes"),
        (
            ["recipe.batch_size=20", "recipe.accumulation=3"],
            "recipe.batch_size: 4 processes need at least two images each in all 3 parts of a batch "
            "(recipe.accumulation), 24, got 20; start fewer",
        ),
        (["precision.sync_batch_norm=true"], "precision.sync_batch_norm: torch has it for GPUs alone"),
        (["method=bikd"], "method.name: bikd cannot be trained by several processes"),
        (["run.step=compile"], "run.step: compile is for one process"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(make_config, settings, message):
    config = make_config(*settings)
    check_ranks(config, Ranks())
    with pytest.raises(UserError) as error:
        check_ranks(config, Ranks(1, 4))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["fitnet", "simkd", "reviewkd", "ofd"])
def test_normalisation_over_all_processes_has_the_same_state(make_config, name):
    """Of network and method: every layer of theirs, the same parameters and buffers under the same names."""
    student, teacher = make_networks()
    method = build_tiny_method(name, settings_of(name), student, teacher)
    student = method.adapt_student(student)
    config = make_config("method=ce", "recipe.batch_size=50")
    recipe, train = config.recipe_of(config.student), prepare(config).train  # 417 images, the last batch has 17
    before = [dict(module.state_dict(keep_vars=True)) for module in (student, method)]
    layers = [names_of(module, _BatchNorm) for module in (student, method)]
    norms_of_teacher = names_of(teacher, _BatchNorm)

    assert synchronize_batch_norm(Ranks(), train, recipe, student, method) == (student, method)
    assert not names_of(student, nn.SyncBatchNorm)
    ranks = Ranks(1, 2)
    converted = synchronize_batch_norm(ranks, train.shared_by(ranks), recipe, student, method)
    assert [names_of(module, nn.SyncBatchNorm) for module in converted] == layers
    assert layers[0]
    assert layers[1] or name == "simkd"  # whose layers are the student's
    for module, state in zip(converted, before, strict=True):
        after = module.state_dict(keep_vars=True)
        assert list(after) == list(state)
        assert all(after[key] is state[key] for key in state)
    assert names_of(teacher, nn.SyncBatchNorm) == []
    assert names_of(teacher, _BatchNorm) == norms_of_teacher


def names_of(module, kind):
    return [name for name, one in module.named_modules() if isinstance(one, kind)]


@pytest.mark.parametrize(("size", "accumulation", "message"), [
    (9, 1, "the last batch has 17 images, and each of 9 processes needs two"),
    (4, 3, "the last batch's smallest of 3 parts has 5 images, and each of 4 processes needs two"),
])  # fmt: skip
def test_normalisation_over_all_processes_needs_images_in_each(make_config, size, accumulation, message):
    config = make_config("method=ce", "recipe.batch_size=50", f"recipe.accumulation={accumulation}")
    ranks = Ranks(1, size)
    with pytest.raises(UserError, match=message):
        synchronize_batch_norm(ranks, prepare(config).train.shared_by(ranks), config.recipe_of(config.student))


def test_torchrun_is_for_one_run_of_src_train(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, told in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr("sys.argv", ["train.py", "-m", "seed=0,1"])
        with pytest.raises(SystemExit) as end:
            train.main()
        assert end.value.code == 2
        assert ("several processes train one run" in capsys.readouterr().err) is told
    assert command(Parser(""))(lambda options, settings: 0)([]) == 2
    assert "start this one by itself" in capsys.readouterr().err


def test_random_numbers_of_their_own_leave_the_common_ones_alone():
    cpu = torch.device("cpu")
    drawn = []
    for rank in (0, 1):
        ranks = Ranks(rank, 2)
        torch.manual_seed(0)
        for moment in (1, 2):
            ranks.at(moment)
            with ranks.own_random(cpu):
                drawn.append(torch.rand(1).item())
        assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(0)).item()
    assert len(set(drawn)) == 4
