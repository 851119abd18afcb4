"""The kinds of training step: what may be captured in a CUDA graph, and that a graph changes no number."""

import contextlib
import copy
import gc
import itertools
import logging
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ltkd.config.identity import student_run, teacher_run
from ltkd.data import device_data
from ltkd.errors import UserError
from ltkd.loop import graph
from ltkd.loop.graph import CaptureFailed, GraphedStep, make_step
from ltkd.loop.step import Step, make_optimizer
from ltkd.loop.totals import Totals
from ltkd.methods import list_methods, method_class
from ltkd.runs.build import TrainedTeacher, new_method, new_model
from ltkd.runs.run import run_experiment
from ltkd.runs.teacher_store import find_or_train_teacher
from ltkd.runs.train import make_training
from ltkd.setup import prepare, synthetic_setup

from ..conftest import PROJECT
from ..methods.kinds import representatives
from ..methods.problem import make_problem
from ..runs.test_fit import numbers

CAPTURABLE = [name for name in list_methods() if method_class(name).capturable]
KINDS = [name for name in representatives() if method_class(name).capturable]
aten = torch.ops.aten

# What waits for the device, has a shape that depends on values, or (lift_fresh) brings a constant from the host.
NOT_IN_A_GRAPH = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_consecutive, aten.unique_dim,
    aten.repeat_interleave, aten.equal, aten.is_nonzero, aten.bincount, aten.histc, aten.lift_fresh,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Watch(TorchDispatchMode):
    """Notes every operation that a captured step must not contain, forward and backward."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        packet = function.overloadpacket
        by_mask = packet in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1])
        if packet in NOT_IN_A_GRAPH or by_mask:
            self.found.add(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("operation", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x * torch.tensor(2.0)])
def test_the_watch_sees_what_does_not_belong_in_a_graph(operation):
    with Watch() as watch:
        operation(torch.randn(5))
    assert watch.found


@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_capturable_method_never_looks_at_the_device(name):
    problem = make_problem(name, dtype=torch.float32)
    problem.method.start_epoch(1)
    sum(problem.terms().values()).backward()  # what is set up by the first step is not in the graph
    with Watch() as watch:
        sum(problem.terms().values()).backward()
    assert watch.found == set(), f"{name} should say capturable = False"


def frozen_in_a_graph(method):
    """What a captured step has by value: numbers of the method's modules, and where its buffers are."""
    values = {}
    for path, module in method.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, (bool, int, float, str, tuple, type(None))):
                values[f"{path}.{key}"] = value
    return values | {name: buffer.data_ptr() for name, buffer in method.named_buffers()}


@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_capturable_method_changes_buffers_in_place_and_nothing_else(name):
    problem = make_problem(name, dtype=torch.float32)
    problem.method.start_epoch(1)
    sum(problem.terms().values()).backward()
    before = frozen_in_a_graph(problem.method)
    for epoch in (1, 2, 10):
        problem.method.start_epoch(epoch)
        sum(problem.terms().values()).backward()
        problem.method.end_epoch(problem.student)
        assert frozen_in_a_graph(problem.method) == before


def test_the_whole_step_never_looks_at_the_device(make_config):
    training = training_of(make_config("method=ltkd"))
    step = start(make_step(training), training)
    step.run(0)
    given = step.input(1)
    with Watch() as watch:
        step.update(given)
    assert watch.found == set()


# --------------------------------------------------------------------------------------------------- kinds of steps


def training_of(config):
    setup, run = prepare(config), student_run(config)
    teacher = find_or_train_teacher(setup) if config.needs_teacher else None
    further = [find_or_train_teacher(setup, one) for one in config.extra_teachers]
    model = new_model(setup, run.network, run.seed)
    method = new_method(setup, model, teacher, len(further))
    model = method.adapt_student(model).to(setup.device, memory_format=torch.channels_last)
    return make_training(setup, run, model, method, teacher, further)


def start(step, training, epoch=1, rate=0.05):
    training.model.train()
    training.method.train()
    training.method.start_epoch(epoch)
    generator = torch.Generator().manual_seed(epoch)
    order = training.sampler.order(epoch, training.recipe.epochs, generator)
    step.start_epoch(epoch, training.train.draw_epoch(generator, order), rate)
    step.totals.start_epoch()
    return step


def test_on_a_cpu_auto_is_eager_and_a_graph_is_refused(make_config):
    assert type(make_step(training_of(make_config("method=ce")))) is Step
    with pytest.raises(UserError, match=r"run\.step: graph is not possible, a CUDA graph needs an NVIDIA GPU"):
        make_step(training_of(make_config("method=ce", "run.step=graph")))


def test_only_compile_is_part_of_the_identity(make_config):
    plain = make_config()
    for mode in ("eager", "graph"):
        assert student_run(make_config(f"run.step={mode}")).hash == student_run(plain).hash
    compiled = make_config("run.step=compile")
    assert student_run(compiled).hash != student_run(plain).hash
    assert teacher_run(compiled).hash != teacher_run(plain).hash


def test_a_compiled_run_is_an_eager_one_to_rounding(make_config, monkeypatch):
    """Everything but the code generator, which takes its minute."""
    eager = run_experiment(make_config("run.step=eager", "method=ltkd"))
    compiler, made = torch.compile, []

    def compile_without_code_generator(function, **options):
        made.append(function)
        return compiler(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", compile_without_code_generator)
    compiled = run_experiment(make_config("run.step=compile", "method=ltkd"))
    assert len(made) == 2  # the teacher's and the student's
    assert compiled["hash"] != eager["hash"]
    assert compiled["accuracy"]["last"]["all"] == pytest.approx(eager["accuracy"]["last"]["all"], abs=5)


def test_a_checkpoint_of_another_device_gets_this_devices_optimizer(make_config):
    training = training_of(make_config("method=ce"))
    step = start(make_step(training), training)
    step.run(0)
    state = copy.deepcopy(step.state_dict())
    for group in state["optimizer"]["param_groups"]:
        group["fused"], group["lr"] = True, torch.tensor(0.5)
    step.load_state_dict(state)
    start(step, training, rate=0.25)
    assert all(group["fused"] is None and group["lr"] == 0.25 for group in step.optimizer.param_groups)
    step.run(0)


# ------------------------------------------------------------------------------------------------------------ totals


def test_totals_are_sums_over_images_and_know_the_first_broken_step():
    totals = Totals(torch.device("cpu"))
    totals.start_epoch()
    for step, number in enumerate((4, 4, 3)):
        broken = float("nan") if step == 1 else 1.5
        totals.add({"loss/a": torch.tensor(float(step)), "loss/b": torch.tensor(broken), "mass": torch.ones(2)}, number)
    assert totals.sums()["loss/a"] == 0 * 4 + 1 * 4 + 2 * 3
    assert totals.sums()["mass"].tolist() == [11, 11]
    assert totals.broken_at() == {"loss/a": float("inf"), "loss/b": 1.0, "mass": float("inf")}
    other = Totals(torch.device("cpu"))
    other.load_state_dict(copy.deepcopy(totals.state_dict()))
    for one in (totals, other):
        one.add({"loss/a": torch.tensor(float("inf")), "loss/b": torch.tensor(0.0), "mass": torch.ones(2)}, 1)
        assert one.broken_at() == {"loss/a": 3.0, "loss/b": 1.0, "mass": float("inf")}
        assert one.sums()["mass"].tolist() == [12, 12]


def test_totals_keep_their_place_and_take_a_new_figure():
    totals = Totals(torch.device("cpu"))
    figures = {"loss/a": torch.tensor(2.0), "table": torch.ones(3, 2)}
    totals.add(figures, 5)
    address = totals.tensors()[0].data_ptr()
    totals.start_epoch()
    totals.add(figures, 5)
    totals.load_state_dict(copy.deepcopy(totals.state_dict()))
    assert totals.tensors()[0].data_ptr() == address
    totals.add(figures | {"late": torch.tensor(1.0)}, 2)
    assert totals.sums()["table"].tolist() == [[7, 7]] * 3
    assert totals.sums()["late"] == 2
    assert set(totals.broken_at().values()) == {float("inf")}
    totals.add(figures | {"late": torch.tensor(float("nan"))}, 2)
    assert totals.broken_at()["late"] == 2


# ------------------------------------------------------------------------------------------------- the same, by itself


def state_of(step):
    modules = {"model": step.training.model, "method": step.training.method}
    tensors = {}
    for key, module in modules.items():
        for name, tensor in (*module.named_buffers(), *module.named_parameters()):
            tensors[f"{key}.{name}"] = tensor
    for position, state in enumerate(step.optimizer.state.values()):
        tensors |= {f"optimizer.{position}.{key}": value for key, value in state.items()}
    tensors |= {f"average.{name}": value for name, value in step.average.state_dict().items()}
    tensors |= {f"sum.{name}": value for name, value in step.totals.sums().items()}
    return {name: tensor.detach().clone().cpu() for name, tensor in tensors.items()}


def random_state(device):
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def twenty_steps(config, kind, compiled=False):
    """20 steps over epochs of 5 (417 images, batches of 100: the last has 17), with all that changes by epoch."""
    training = training_of(config)
    torch.manual_seed(0)
    step = kind(training, make_optimizer(training), compiled=compiled)
    for epoch in range(1, 5):
        start(step, training, epoch, rate=0.05 / epoch)
        assert len(training.train.steps(training.recipe.batch_size)) == 5
        for number in range(5):
            step.run(number)
        training.method.end_epoch(training.model)
    state, random = state_of(step), random_state(training.device)
    step.close()
    return state, random


REPLAY = ("replay", None)


class RecordedStep(GraphedStep):
    """A GraphedStep without a GPU: what is captured is not carried out, and carried out when it is replayed."""

    recording = False

    def update(self, given):
        if not RecordedStep.recording:
            super().update(given)


@pytest.fixture
def recorded_events():
    """Replays, and what is recorded and waited for, of `recorded_graphs`."""
    return []


@pytest.fixture
def recorded_graphs(monkeypatch, recorded_events):
    """torch.cuda as far as GraphedStep uses it, on the CPU. Returns the list of batch sizes that were captured."""
    sizes, steps = [], {}

    class Graph:
        def replay(self):
            recorded_events.append(REPLAY)
            step, buffers, frozen = steps[self]
            assert frozen_in_a_graph(step.training.method) == frozen
            Step.update(step, buffers)

        def reset(self):
            steps.pop(self)

    @contextlib.contextmanager
    def capture(captured, **options):
        RecordedStep.recording = True
        yield
        RecordedStep.recording = False

    class Event:
        def record(self, stream):
            recorded_events.append(("record", self))

    original = GraphedStep._capture

    def remember(self, given):
        buffers, captured = original(self, given)
        steps[captured] = self, buffers, frozen_in_a_graph(self.training.method)
        sizes.append(len(buffers.choices.permutation))
        return buffers, captured

    monkeypatch.setattr(GraphedStep, "_capture", remember)
    stream = SimpleNamespace(
        wait_stream=lambda other: None, wait_event=lambda event: recorded_events.append(("wait", event))
    )
    for name, fake in {
        "graph_pool_handle": lambda: None, "Stream": lambda device: stream, "current_stream": lambda device: stream,
        "stream": lambda stream: contextlib.nullcontext(), "CUDAGraph": Graph, "graph": capture,
        "synchronize": lambda device: None, "get_rng_state": lambda device: torch.empty(0),
        "set_rng_state": lambda state, device: None, "set_stream": lambda stream: None, "Event": Event,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    yield sizes
    graph._latest_draw.cache_clear()


@pytest.mark.parametrize("draws", [False, True])
def test_steps_that_draw_follow_one_another_on_the_device(
    make_config, monkeypatch, recorded_graphs, recorded_events, draws
):
    if draws:
        states = itertools.count()
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor(next(states)))
    trainings = [training_of(make_config("method=ce", f"seed={seed}")) for seed in (0, 1)]
    steps = [start(RecordedStep(training, make_optimizer(training)), training) for training in trainings]
    for number in (0, 1):
        for step in steps:
            step.run(number)
    [latest] = {event for kind, event in recorded_events if kind in ("wait", "record")}
    captured, replayed = ("record", latest), [REPLAY]
    if draws:
        replayed = [("wait", latest), REPLAY, ("record", latest)]
    assert recorded_events == [captured, *replayed, captured, *replayed, *replayed, *replayed]


def test_an_error_of_before_is_not_that_of_a_capture(make_config, recorded_graphs, monkeypatch):
    def synchronize(device):
        raise RuntimeError("of another training")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    training = training_of(make_config("method=ce"))
    step = start(RecordedStep(training, make_optimizer(training)), training)
    with pytest.raises(RuntimeError, match=r"^of another training$"):
        step.run(0)


@pytest.fixture(scope="session")
def shared_teachers(tmp_path_factory):
    return tmp_path_factory.mktemp("teachers_of_steps")


@pytest.mark.parametrize("name", KINDS)
def test_capturing_changes_nothing_but_the_way(make_config, shared_teachers, recorded_graphs, name):
    """20 steps of both kinds are equal bit for bit: buffers are filled, what the warm-up changes is put back."""
    config = make_config(f"method={name}", f"output_root={shared_teachers}", "recipe.batch_size=100")
    (eager, eager_random), (graphed, graphed_random) = (twenty_steps(config, kind) for kind in (Step, RecordedStep))
    assert recorded_graphs == [100, 17]
    assert eager.keys() == graphed.keys()
    assert [key for key in eager if not torch.equal(eager[key], graphed[key])] == []
    assert torch.equal(eager_random, graphed_random)


RECIPES = {  # what a graph can do
    "optimizer_and_average": ["method=ce", "recipe.optimizer=adamw", "recipe.average=ema", "recipe.accumulation=2"],
    "augmentation": ["method=ce", "recipe.augmentation=[autoaugment,{name: cutout, length: 4},mixup,cutmix]"],
    "sampling": [  # other frequencies of the classes in each epoch, in a buffer of the method
        "method=balanced_posterior", "method.teachers=1", "++student.recipe.sampling=progressive", "recipe.epochs=4",
    ],
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_capturing_changes_nothing_of_another_recipe(make_config, shared_teachers, recorded_graphs, recipe):
    config = make_config(f"output_root={shared_teachers}", "recipe.batch_size=100", *recipe)
    (eager, _), (graphed, _) = (twenty_steps(config, kind) for kind in (Step, RecordedStep))
    assert recorded_graphs == [100, 17]
    assert eager.keys() == graphed.keys()
    assert [key for key in eager if not torch.equal(eager[key], graphed[key])] == []


# --------------------------------------------------------------------------------------------------------- CUDA graph


@pytest.fixture(scope="session")
def cuda_teachers(tmp_path_factory):
    return tmp_path_factory.mktemp("cuda_teachers")


@pytest.fixture
def make_cuda_config(make_config, cuda_teachers):
    def make(*overrides):
        return make_config("device=cuda", f"output_root={cuda_teachers}", "recipe.batch_size=100", *overrides)

    return make


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CAPTURABLE)
def test_20_graphed_steps_are_20_eager_steps_bit_for_bit(make_cuda_config, name, precision):
    config = make_cuda_config(f"method={name}", f"precision.autocast={precision}")
    (eager, eager_random), (graphed, graphed_random) = (twenty_steps(config, kind) for kind in (Step, GraphedStep))
    assert eager.keys() == graphed.keys()
    different = [key for key in eager if not torch.equal(eager[key], graphed[key])]
    assert different == []
    assert torch.equal(eager_random, graphed_random)


@pytest.mark.cuda
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_20_graphed_steps_of_another_recipe_are_20_eager_steps(make_cuda_config, recipe):
    config = make_cuda_config(*recipe)
    eager, graphed = (twenty_steps(config, kind)[0] for kind in (Step, GraphedStep))
    assert eager.keys() == graphed.keys()
    assert [key for key in eager if not torch.equal(eager[key], graphed[key])] == []


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (torch.OutOfMemoryError("no memory"), torch.OutOfMemoryError, "^no memory$"),
        (
            RuntimeError("it looks\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"),
            CaptureFailed,
            r"^student resnet8: the step of method ce cannot be captured \(it looks\);",
        ),
    ],
)
def test_what_keeps_a_step_from_being_captured_is_said(make_config, recorded_graphs, monkeypatch, error, raised, text):
    def fail(self, buffers):
        try:
            raise error
        finally:  # as torch.cuda.graph does where it ends a capture that has failed
            raise RuntimeError("operation failed due to a previous error during capture")

    training = training_of(make_config("method=ce"))
    monkeypatch.setattr(RecordedStep, "_record", fail)
    step = start(RecordedStep(training, make_optimizer(training)), training)
    with pytest.raises(raised, match=text):
        step.run(0)


def test_a_failed_capture_leaves_the_stream_that_was_current(make_config, recorded_graphs, monkeypatch):
    set_to = []

    @contextlib.contextmanager
    def broken(graph, **options):
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", broken)
    monkeypatch.setattr(torch.cuda, "set_stream", set_to.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(name="mine", wait_stream=id))
    training = training_of(make_config("method=ce"))
    step = start(RecordedStep(training, make_optimizer(training)), training)
    with pytest.raises(UserError, match="cannot be captured"):
        step.run(0)
    assert [stream.name for stream in set_to] == ["mine"]


@pytest.mark.cuda
def test_eager_steps_repeat_bit_for_bit_on_this_gpu(make_cuda_config):
    config = make_cuda_config("method=ltkd")
    one, other = (twenty_steps(config, Step)[0] for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.cuda
def test_a_method_with_second_derivatives_repeats_bit_for_bit_on_this_gpu(make_cuda_config):
    one, other = (run_experiment(make_cuda_config("method=bikd", f"study={study}")) for study in ("one", "other"))
    assert numbers(one) == numbers(other)


@pytest.mark.cuda
def test_auto_on_a_gpu_is_a_graph_unless_the_method_looks(make_cuda_config, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    training = training_of(make_cuda_config("method=kd"))
    assert type(make_step(training)) is GraphedStep
    monkeypatch.setattr(type(training.method), "capturable", False)
    assert type(make_step(training)) is Step
    assert "no CUDA graph, method kd looks at values in its step" in caplog.text


@pytest.mark.cuda
def test_a_method_that_looks_and_does_not_say_so_is_named(cuda_teachers):
    """In a process of its own: a failed capture leaves allocator and random generator as they were in the middle."""
    overrides = [
        f"output_root={cuda_teachers}", "study=looking", "device=cuda", "method=kd", "teacher=resnet8",
        "student=resnet8", "recipe.epochs=1", "recipe.warmup_epochs=0", "wandb.mode=disabled",
    ]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", LOOKING, *overrides], capture_output=True, text=True, cwd=PROJECT, timeout=600
    )
    assert re.search(r"CaptureFailed: student resnet8: .* method kd cannot be captured .*run\.step=eager", ended.stderr)


LOOKING = """
import sys
from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.methods import method_class
from ltkd.runs.run import run_experiment

kd = method_class("kd")
distill = kd.distill
kd.distill = lambda *given: {name: term * (1 + 0 * term.item()) for name, term in distill(*given).items()}
run_experiment(load_config(compose_values(*sys.argv[1:])))
"""


def colour_training(config):
    """A training on 95 images, batches of 64 and 31, with a teacher that nobody trained."""
    setup = synthetic_setup(config, 100)
    few = replace(setup.data, train_images=setup.data.train_images[:95], train_labels=setup.data.train_labels[:95])
    setup = replace(setup, train=device_data(few, "train", device=setup.device))
    run = student_run(config)
    teacher = TrainedTeacher(new_model(setup, config.teacher, 0).eval().requires_grad_(False), None)
    model = new_model(setup, run.network, run.seed)
    return make_training(setup, run, model, new_method(setup, model, teacher), teacher)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["kd", "ltkd", "reviewkd"])
def test_steps_on_colour_images_are_the_same_in_a_graph(make_config, name):
    """The kernels of the usual pairs: 32 x 32 pixels, three channels, bfloat16, a short last batch."""
    pair = ["dataset=cifar100_lt", "teacher=resnet32x4", "student=resnet8x4", "recipe.batch_size=64"]
    config = make_config(*pair, "precision.autocast=bfloat16", "device=cuda", f"method={name}")
    states = []
    for kind in (Step, GraphedStep):
        training = colour_training(config)
        torch.manual_seed(0)
        step = kind(training, make_optimizer(training))
        for epoch in (1, 2, 3):
            start(step, training, epoch)
            assert [step.run(number) for number in range(training.steps_per_epoch)] == [64, 31]
        states.append(state_of(step))
        step.close()
    eager, graphed = states
    assert eager.keys() == graphed.keys()
    assert [key for key in eager if not torch.equal(eager[key], graphed[key])] == []


@pytest.mark.cuda
@pytest.mark.parametrize(
    "settings", [["kd"], ["ltkd"], ["crd"], ["ce", "student.retraining={name: crt, epochs: 3}"]], ids=" ".join
)
def test_graph_and_eager_runs_are_one_run_and_resume_into_each_other(make_cuda_config, monkeypatch, settings):
    def config(mode):
        return make_cuda_config(f"method={settings[0]}", *settings[1:], f"run.step={mode}", f"study={mode}")

    eager, graph = run_experiment(config("eager")), run_experiment(config("graph"))
    assert numbers(eager) == numbers(graph)

    run, calls = GraphedStep.run, []

    def dying(self, number):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return run(self, number)

    halved = config("auto")
    monkeypatch.setattr(GraphedStep, "run", dying)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(halved)
    monkeypatch.undo()
    assert numbers(run_experiment(halved)) == numbers(eager)


@pytest.mark.cuda
def test_a_closed_step_gives_its_memory_back(make_cuda_config):
    reserved = []
    for _ in range(3):  # after the first, libraries have the workspaces that they keep
        training = training_of(make_cuda_config("method=kd"))
        step = start(make_step(training), training)
        for number in range(5):
            step.run(number)
        step.close()
        del training, step
        gc.collect()
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[2] <= reserved[1]


@pytest.mark.cuda
def test_a_compiled_step_can_be_captured_too(make_cuda_config):
    config = make_cuda_config("method=kd")
    eager, captured = (twenty_steps(config, kind, compiled=True)[0] for kind in (Step, GraphedStep))
    assert eager.keys() == captured.keys()
    for name in eager:
        torch.testing.assert_close(captured[name], eager[name], rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
def test_no_step_of_a_captured_epoch_waits_for_the_gpu(make_cuda_config):
    training = training_of(make_cuda_config("method=kd", "cache.mode=fill"))
    assert training.teacher_logits.resident is not None
    step = start(make_step(training), training)
    for number in range(5):
        step.run(number)
    plan = training.train.draw_epoch(torch.Generator().manual_seed(3))
    start(step, training, epoch=2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(5):
            step.run(number)
        training.teacher_logits.start_epoch(plan)  # nor do the logits at the start of an epoch
        training.teacher_logits.rows(slice(0, 100))
    finally:
        torch.cuda.set_sync_debug_mode("default")
