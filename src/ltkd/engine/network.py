"""One network of a run: built from its seed, given its objective, trained, written down."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ltkd.config import Network, Teacher
from ltkd.data import build_sampler
from ltkd.engine.post_hoc import post_hoc_figures
from ltkd.engine.precision import autocast
from ltkd.engine.result import teacher_in_short, write_result
from ltkd.engine.retrain import check_retraining, retrain
from ltkd.engine.robustness import robustness_figures
from ltkd.engine.teacher_logits import TeacherLogits, use_cache
from ltkd.engine.trainer import fit
from ltkd.engine.training import Training
from ltkd.engine.workplace import Workplace, predict
from ltkd.errors import UserError
from ltkd.files import write_json
from ltkd.identity import NetworkRun
from ltkd.losses import ClassGroups
from ltkd.methods import Method, MethodContext, Networks, build_method, build_task_loss, method_class
from ltkd.models import build_model, load_weights
from ltkd.models.classifier import order_classes
from ltkd.tracking import Tracker


@dataclasses.dataclass(frozen=True)
class TrainedTeacher:
    model: nn.Module  # in eval mode, without gradients
    result: dict[str, Any]
    directory: Path | None = None  # where it is stored


def new_model(place: Workplace, network: Network, seed: int) -> nn.Module:
    """The network with its initial weights: a function of the seed alone, whatever the method adds later."""
    torch.manual_seed(seed)
    dataset = place.config.dataset
    model = build_model(
        network.name, num_classes=dataset.num_classes, in_channels=dataset.channels, pretrained=network.pretrained,
        **network.arguments,
    )  # fmt: skip
    build_task_loss(network.task_loss, torch.as_tensor(place.data.split.class_counts)).adapt_network(model)
    check_retraining(network, model)
    checkpoint = _given_weights(network)
    if checkpoint is not None:
        load_weights(model, Path(checkpoint), key=network.checkpoint_key)
        if network.class_names is not None:
            order_classes(model, network.class_names, place.data.class_names)
        if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
            raise UserError(f"{checkpoint}: has weights that are infinite or nan")
    model = model.to(place.device, memory_format=torch.channels_last)
    try:
        predict(place, model, next(place.test.evaluation_batches(2)).images)
    except torch.OutOfMemoryError:
        raise  # is no fault of the network
    except Exception as error:  # whatever a foreign network raises
        size = f"{dataset.channels} x {dataset.image_size} x {dataset.image_size}"
        raise UserError(f"{network.name}: does not take the data set's images, {size} ({error})") from error
    return model


def new_method(
    place: Workplace, model: nn.Module, teacher: TrainedTeacher | None, num_further_teachers: int = 0
) -> Method:
    """The student's objective: the configured method with the student's task loss, ready to train with.

    Parameters of its own start from the student's seed, whether the teacher was trained just now or found.
    """
    method = make_method(place, model, teacher, num_further_teachers)
    if method.needs_teacher_statistics:
        batches = place.train.evaluation_batches()
        logits = torch.cat([predict(place, teacher.model, batch.images).logits.float() for batch in batches])
        method.prepare(logits, place.train.labels)
    return method


def make_method(
    place: Workplace, model: nn.Module, teacher: TrainedTeacher | None, num_further_teachers: int = 0
) -> Method:
    """The method of `new_method`, not prepared. UserError where method and networks do not go together."""
    config = place.config
    torch.manual_seed(config.seed)
    context = _context(place, config.student, model, teacher, num_further_teachers)
    task_loss = build_task_loss(config.student.task_loss, context.class_counts)
    method = build_method(config.method_name, config.method_arguments, context, task_loss)
    return method.to(place.device, memory_format=torch.channels_last)  # as the maps that its convolutions take


def task_only(place: Workplace, network: Network, kind: Callable[..., Method] | None = None) -> Method:
    """A teacher's objective: its task loss. `kind` makes it from a context and a task loss where it is not plain."""
    context = _context(place, network, None, None)
    task_loss = build_task_loss(network.task_loss, context.class_counts)
    return (kind or method_class("ce"))(context, task_loss).to(place.device)


def _context(
    place: Workplace, network: Network, model: nn.Module | None, teacher: TrainedTeacher | None,
    num_further_teachers: int = 0,
) -> MethodContext:  # fmt: skip
    """What a method may know. Shapes come from one dry forward pass, in eval mode, so that nothing changes."""
    split = place.data.split
    images = next(place.test.evaluation_batches(2)).images
    return MethodContext(
        num_classes=place.config.dataset.num_classes,
        class_counts=torch.as_tensor(split.class_counts, device=place.device),
        groups=torch.as_tensor(split.groups, device=place.device),
        group_names=split.group_names,
        epochs=place.config.recipe_of(network).epochs,
        batch_size=place.config.recipe_of(network).batch_size,
        train_labels=place.train.labels,
        student=predict(place, model, images, features=True) if model is not None else None,
        teacher=predict(place, teacher.model, images, features=True) if teacher is not None else None,
        num_train=len(place.train),
        networks=_networks(model, teacher.model) if teacher is not None else None,
        num_further_teachers=num_further_teachers,
        student_name=network.name,
        teacher_name=place.config.teacher.name,
    )


def _networks(student: nn.Module, teacher: nn.Module) -> Networks:
    return Networks(
        student=lambda images, features=False: student(images, features=features),
        teacher=torch.no_grad()(lambda images, features=False: teacher(images, features=features)),
        student_classifier=getattr(student, "classifier", None),
        teacher_classifier=getattr(teacher, "classifier", None),
        teacher_norms=getattr(teacher, "preact_norms", None),
    )


def make_training(
    place: Workplace, run: NetworkRun, model: nn.Module, method: Method, teacher: TrainedTeacher | None,
    further_teachers: Sequence[TrainedTeacher] = (),
) -> Training:  # fmt: skip
    """What fit() needs to train `model` on `method`'s objective."""
    config, split = place.config, place.data.split
    recipe = config.recipe_of(run.network)
    if _given_weights(run.network) is not None:
        recipe = dataclasses.replace(recipe, epochs=0)  # weights from a file are used as they are
    groups = ClassGroups.of(torch.as_tensor(split.groups, device=place.device))
    only_logits = teacher is not None and method.needs.teacher_logits_only
    return Training(
        label=f"{run.role} {run.network.name}", identity=run.hash, model=model, method=method,
        teacher=teacher.model if teacher else None, further_teachers=[one.model for one in further_teachers],
        teacher_logits=_logits_ahead(place, teacher, recipe.epochs) if only_logits else None,
        further_logits=[_logits_ahead(place, one, recipe.epochs) for one in further_teachers],
        train=place.train, test=place.test, validation=place.validation,
        split=split, groups=groups, recipe=recipe, seed=run.seed, device=place.device,
        sampler=build_sampler(recipe.sampling, torch.as_tensor(place.data.train_labels)),
        autocast=functools.partial(autocast, config.precision, place.device),
        evaluate_every=config.run.evaluate_every, progress=config.run.progress, step=config.run.step,
    )  # fmt: skip


def _logits_ahead(place: Workplace, teacher: TrainedTeacher, epochs: int) -> TeacherLogits:
    """The teacher's logits on the training images, with the cache that is kept beside it."""
    config, result = place.config, teacher.result
    logits = TeacherLogits(
        teacher.model, place.train, functools.partial(autocast, config.precision, place.device),
        num_classes=config.dataset.num_classes, storage=config.cache.storage,
    )  # fmt: skip
    if teacher.directory is not None:
        about = {
            "weights": result["weights_sha256"], "data": place.data.manifest()["train_data_sha256"],
            "mean": config.dataset.mean, "std": config.dataset.std, "crop_padding": place.train.crop_padding,
            "horizontal_flip": place.train.horizontal_flip, "precision": dataclasses.asdict(config.precision),
        }  # fmt: skip
        use_cache(
            logits, label=f"teacher {result['teacher']}", directory=teacher.directory, about=about,
            settings=config.cache, epochs=epochs, progress=config.run.progress,
        )  # fmt: skip
    return logits


def train_network(
    place: Workplace, run: NetworkRun, model: nn.Module, method: Method, teacher: TrainedTeacher | None,
    further_teachers: Sequence[TrainedTeacher] = (),
) -> dict[str, Any]:  # fmt: skip
    """Train (or resume) and return the result, which is then on disk with the weights."""
    start, config, names = time.perf_counter(), place.config, run.names
    write_json(run.directory / "config.json", run.settings)
    training = make_training(place, run, model, method, teacher, further_teachers)
    tracker = Tracker(
        run.directory, config.wandb, name=f"{names['label']}-s{run.seed}", group=f"{names['label']}-{names['cell']}",
        job_type=run.role, tags=[names["dataset"], names["method"], config.study], config=run.settings,
        run_id=run.tracking_id,
    )  # fmt: skip
    with tracker:
        fitted = fit(training, run.directory, tracker)
        figures = {"further_teacher_results": [teacher_in_short(one.result) for one in further_teachers]}
        if run.network.retraining is not None:
            figures["before_retraining"] = fitted.accuracy
            cross_entropy = task_only(place, dataclasses.replace(run.network, task_loss="ce"))
            fitted = fitted.followed_by(retrain(run.network, training, cross_entropy, run.directory, tracker))
        figures["post_hoc"] = post_hoc_figures(place, model)
        if run.role == "student":
            figures["robustness"] = robustness_figures(place, method, model, teacher.model if teacher else None)
        result = write_result(
            place, run, model, fitted, teacher.result if teacher else None, figures, time.perf_counter() - start
        )
        tracker.summarize({"accuracy": result["accuracy"], "images_per_second": result["images_per_second"]})
    return result


def _given_weights(network: Network) -> str | None:
    """The file of a teacher that is not trained here."""
    return network.checkpoint if isinstance(network, Teacher) else None
