"""Builds a network from its seed, and its objective."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ltkd.config.schema import Config, Network, Recipe, Teacher
from ltkd.data import build_sampler
from ltkd.errors import UserError
from ltkd.loop.schedule import learning_rate
from ltkd.loop.whole_batch import check_whole_batch, on_all_processes
from ltkd.methods import Method, MethodContext, Networks, build_method, method_class
from ltkd.models import build_model, load_weights
from ltkd.models.classifier import give_classifier, order_classes
from ltkd.models.inherited_weights import inherit_weights
from ltkd.models.output import ModelOutput
from ltkd.models.own_input import OwnInput
from ltkd.ranks import Ranks
from ltkd.results.result import Result
from ltkd.runs.retrain import check_retraining
from ltkd.setup import Setup, predict
from ltkd.task_losses import build_task_loss


@dataclasses.dataclass(frozen=True)
class TrainedTeacher:
    model: nn.Module  # in eval mode, without gradients
    result: Result | None  # None: not trained
    directory: Path | None = None  # where it is stored


def new_model(setup: Setup, network: Network, seed: int) -> nn.Module:
    """Build the network with its initial weights, which depend on the seed alone, whatever the method adds later."""
    torch.manual_seed(seed)
    dataset = setup.config.dataset
    model = build_model(
        network.name,
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
        pretrained=network.pretrained,
        **network.arguments,
    )
    give_classifier(model, network.classifier)
    build_task_loss(network.task_loss, torch.as_tensor(setup.data.split.class_counts)).adapt_network(model)
    check_retraining(network, model)
    if isinstance(network, Teacher) and network.checkpoint is not None:
        checkpoint = network.checkpoint
        try:
            load_weights(model, Path(checkpoint), key=network.checkpoint_key)
        except UserError as error:
            raise UserError(f"teacher.checkpoint: {error}") from error
        if network.class_names is not None:
            order_classes(model, network.class_names, setup.data.class_names)
        if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
            raise UserError(f"teacher.checkpoint: {checkpoint}: has weights that are infinite or nan")
    model = model.to(setup.device, memory_format=torch.channels_last)
    if isinstance(network, Teacher):
        _let_have_own_input(setup, network, model)
    try:
        predict(setup, model, next(setup.test.evaluation_batches(2)).images)
    except (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError)):  # torch 2.8 and later
        raise  # is no fault of the network
    except Exception as error:  # whatever a foreign network raises
        size = f"{dataset.channels} x {dataset.image_size} x {dataset.image_size}"
        raise UserError(f"{network.name}: does not take the data set's images, {size} ({error})") from error
    return model


def start_from_teacher(config: Config, student: nn.Module, teacher: nn.Module) -> float:
    """Give the student the teacher's weights, in place (`student.start`); returns the share of its parameters."""
    try:
        return inherit_weights(student, teacher)
    except UserError as error:
        names = f"{config.student.name} cannot start from teacher {config.teacher.name}"
        raise UserError(f"student.start: {names}: {error}") from error


def _let_have_own_input(setup: Setup, teacher: Teacher, model: nn.Module) -> None:
    """The teacher sees images of its own mean, std and size, where they are set."""
    dataset = setup.config.dataset
    if teacher.mean is teacher.std is teacher.image_size is None:
        return
    input_settings = teacher.mean or dataset.mean, teacher.std or dataset.std, teacher.image_size
    model.register_forward_pre_hook(OwnInput(dataset.mean, dataset.std, *input_settings, setup.device))


def new_method(setup: Setup, model: nn.Module, teacher: TrainedTeacher | None, num_extra_teachers: int = 0) -> Method:
    """Build the student's objective, the configured method with the student's task loss, ready to train with.

    Parameters of its own start from the student's seed, whether the teacher was trained just now or found.
    """
    method = make_method(setup, model, teacher, num_extra_teachers)
    if method.needs_teacher_statistics:
        batches = setup.train.evaluation_batches()
        logits = torch.cat([predict(setup, teacher.model, batch.images).logits.float() for batch in batches])
        method.prepare(logits, setup.train.labels)
    return method


def make_method(setup: Setup, model: nn.Module, teacher: TrainedTeacher | None, num_extra_teachers: int = 0) -> Method:
    """Build the method of `new_method`, not prepared. UserError where method and networks do not go together."""
    config = setup.config
    torch.manual_seed(config.seed)
    context = _context(setup, config.student, model, teacher, num_extra_teachers)
    task_loss = build_task_loss(config.student.task_loss, context.class_counts)
    method = build_method(config.method_name, config.method_arguments, context, task_loss)
    if not setup.ranks.alone:
        check_whole_batch(method)
    return method.to(setup.device, memory_format=torch.channels_last)  # as the maps that its convolutions take


def task_only(setup: Setup, network: Network, kind: Callable[..., Method] | None = None) -> Method:
    """Build a teacher's objective, its task loss. `kind` makes one that is not plain from a context and a task loss."""
    context = _context(setup, network, None, None)
    task_loss = build_task_loss(network.task_loss, context.class_counts)
    return (kind or method_class("ce"))(context, task_loss).to(setup.device)


def _context(
    setup: Setup, network: Network, model: nn.Module | None, teacher: TrainedTeacher | None, num_extra_teachers: int = 0
) -> MethodContext:
    """Collects what a method may know. Shapes come from one dry forward pass, in eval mode, so that nothing changes."""
    split, recipe = setup.data.split, setup.config.recipe_of(network)
    images = next(setup.test.evaluation_batches(2)).images
    return MethodContext(
        num_classes=setup.config.dataset.num_classes,
        class_counts=torch.as_tensor(split.class_counts, device=setup.device),
        groups=torch.as_tensor(split.groups, device=setup.device),
        group_names=split.group_names,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        train_labels=setup.train.labels,
        student=predict(setup, model, images, features=True) if model is not None else None,
        teacher=predict(setup, teacher.model, images, features=True) if teacher is not None else None,
        num_train=len(setup.train),
        networks=_networks(setup.ranks, model, teacher.model) if teacher is not None else None,
        ranks=setup.ranks,
        held_out=setup.validation,
        learning_rate=functools.partial(learning_rate, recipe),
        drawn=None if recipe.sampling == "instance" else _class_probabilities(setup, recipe),
        num_extra_teachers=num_extra_teachers,
        student_name=network.name,
        teacher_name=setup.config.teacher.name,
    )


def _class_probabilities(setup: Setup, recipe: Recipe) -> Callable[[int], Tensor]:
    """Returns a function of the epoch, counted from 1: the probability of each class [C] to be drawn."""
    sampler = build_sampler(recipe.sampling, torch.as_tensor(setup.data.train_labels))
    missing = setup.config.dataset.num_classes - len(sampler.class_counts)  # the last classes may have no image
    return lambda epoch: F.pad(sampler.probabilities(epoch, recipe.epochs), (0, missing)).to(setup.device)


def _networks(ranks: Ranks, student: nn.Module, teacher: nn.Module) -> Networks:
    as_function = functools.partial(on_all_processes, ranks)
    return Networks(
        student=as_function(lambda images, features=False: student(images, features=features)),
        teacher=as_function(torch.no_grad()(lambda images, features=False: teacher(images, features=features))),
        student_classifier=getattr(student, "classifier", None),
        teacher_classifier=getattr(teacher, "classifier", None),
        teacher_norms=getattr(teacher, "preact_norms", None),
        student_at=functools.partial(run_at, student),
        student_parameters={name: p for name, p in student.named_parameters() if p.requires_grad},
    )


def run_at(model: nn.Module, parameters: Mapping[str, Tensor], images: Tensor) -> ModelOutput:
    """The network's output with other parameters, in the mode that it is in; its buffers stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return functional_call(model, {**parameters, **buffers}, (images,))


def given_weights(network: Network) -> str | None:
    """The file of a teacher that is not trained here, or None."""
    return network.checkpoint if isinstance(network, Teacher) else None
