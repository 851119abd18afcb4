"""Settings that are right each by itself and do not go together: said before anything is trained."""

import logging
from typing import Any

from ltkd.config.schema import Config, Network
from ltkd.data import build_augmentation
from ltkd.methods import method_class
from ltkd.models import starting_weights
from ltkd.results.corrections import evened_out_by
from ltkd.task_losses import task_loss_class

logger = logging.getLogger(__name__)


def impossible_combinations(config: Config) -> list[str]:
    """A line, beginning with the key, for each pair of settings that cannot both be had."""
    errors = []
    networks = _networks(config)
    for role, network in networks.items():
        loss = _name(network.task_loss)
        classifier = _name(network.classifier)
        replaced = f"task_loss={loss}" if task_loss_class(loss).replaces_classifier else None
        if replaced and classifier != "linear":
            errors.append(f"{role}.classifier: {role}.{replaced} brings a classifier of its own; leave it at linear")
        replaced = replaced or (f"classifier={classifier}" if classifier != "linear" else None)
        if replaced and network.retraining is not None and _name(network.retraining) == "lws":
            what = f"lws scales a linear classifier, and {role}.{replaced} puts another in its place"
            errors.append(f"{role}.retraining: {what}; use crt")
        if build_augmentation(config.recipe_of(network).augmentation).mixing:
            mixed = f"{config.recipe_of(network).augmentation} mixes the labels of two images"
            if not task_loss_class(loss).takes_mixed_labels:
                errors.append(f"{role}.task_loss: recipe.augmentation={mixed}, and {loss} has a margin for one")
            if role == "student" and method_class(config.method_name).reads_labels:
                errors.append(
                    f"method.name: recipe.augmentation={mixed}, and {config.method_name} reads the label of each image"
                )
    size = config.dataset.image_size
    cutouts = [build_augmentation(config.recipe_of(network).augmentation).cutout for network in networks.values()]
    for length in {cutout.length for cutout in cutouts if cutout is not None and cutout.covers_all(size)}:
        errors.append(
            f"recipe.augmentation: a square of {length} pixels cut out leaves nothing of images of {size}; "
            f"use {{name: cutout, length: {size // 2}}}"
        )
    crops = {role: config.recipe_of(network).augmentation for role, network in networks.items()}
    if len({build_augmentation(choice).resized_crop is None for choice in crops.values()}) > 1:
        kinds = f"{crops['teacher']} and {crops['student']}"
        errors.append(f"teacher.recipe.augmentation: teacher and student need crops of the same kind, got {kinds}")
    method = method_class(config.method_name)
    if config.recipe_of(config.student).sam and method.learns_once_a_step:
        errors.append(f"recipe.sam: takes each step twice, and method {config.method_name} learns in each; set it to 0")
    if config.student.start == "teacher":
        if not config.needs_teacher:
            alone = "method=kd method.task_weight=1 method.weight=0, which trains with the task loss alone"
            errors.append(f"student.start: method {config.method_name} has no teacher; choose random, or {alone}")
        if starting_weights(config.student.name, config.student.pretrained, config.student.arguments):
            errors.append(
                "student.start: the teacher's weights would replace those given for the student; choose random"
            )
    if config.run.step == "compile" and method.needs.held_out:
        errors.append(
            f"run.step: compiled networks have no second derivative, which method {config.method_name} takes; use eager"
        )
    if not method.keeps_classifier:
        loss = _name(config.student.task_loss)
        deployed = f"method {config.method_name} deploys the student with the teacher's classifier"
        if config.student.retraining is not None:
            errors.append(f"student.retraining: {deployed}; retrain the teacher's (teacher.retraining)")
        if task_loss_class(loss).replaces_classifier:
            errors.append(f"student.task_loss: {deployed}, but {loss} needs one of its own kind; use teacher.task_loss")
        if _name(config.student.classifier) != "linear":
            errors.append(f"student.classifier: {deployed}; leave it at linear")
    if "teacher" in networks and config.teacher.retraining is not None and config.teacher.checkpoint is not None:
        errors.append("teacher.retraining: weights from teacher.checkpoint are used as they are; leave one of them out")
    return errors


def warn_of_combinations(config: Config) -> None:
    """A warning for each pair of settings of a valid configuration that hardly anyone means."""
    networks = _networks(config)
    for role, network in networks.items():
        name = _name(network.task_loss)
        task_loss, sampling = task_loss_class(name), _name(config.recipe_of(network).sampling)
        if config.needs_teacher and not task_loss.softmax_logits:
            logger.warning(
                "%s.task_loss=%s trains sigmoids, but distillation reads a softmax of its logits", role, name
            )
        if task_loss.corrects_prior and sampling != "instance":
            logger.warning(
                "%s.task_loss=%s corrects for the class counts and recipe.sampling=%s evens the classes out: "
                "together they favour rare classes",
                role,
                name,
                sampling,
            )
    made_for = method_class(config.method_name).made_for
    if config.teacher.checkpoint is not None:  # whose training the configuration does not know
        made_for = {key: name for key, name in made_for.items() if not key.startswith("teacher.recipe.")}
    if any(_name(_setting(config, networks, key)) != name for key, name in made_for.items()):
        choices = " ".join(f"{'++' if '.recipe.' in key else ''}{key}={name}" for key, name in made_for.items())
        logger.warning("method=%s is made for %s; elsewhere it is another method", config.method_name, choices)
    teacher = config.teacher if "teacher" in networks else None
    by = None if teacher is None else evened_out_by({"retraining": teacher.retraining})
    if by and made_for.get("teacher.task_loss") == "ce":
        logger.warning("teacher.%s evens the classes out, and method=%s does so once more", by, config.method_name)
    if teacher is not None and teacher.checkpoint is not None and not config.extra_teachers:  # those may train on
        unused = [key for key in ("recipe", "pretrained", "seed") if getattr(teacher, key)]  # but for the defaults
        if unused:
            names = ", ".join(f"teacher.{key}" for key in unused)
            logger.warning("no effect: %s (weights from teacher.checkpoint are used as they are)", names)
    student = config.student
    own_input = (config.teacher.mean, config.teacher.std, config.teacher.image_size)
    if student.start == "teacher" and own_input != (None, None, None):
        logger.warning("student.start: the teacher's weights expect images of its own mean, std or size")
    if config.method.get("task_weight") == 0 and student.task_loss != "ce" and student.retraining is None:
        logger.warning("student.task_loss has no effect with method.task_weight=0")


def _networks(config: Config) -> dict[str, Network]:
    return {"student": config.student} | ({"teacher": config.teacher} if config.needs_teacher else {})


def _setting(config: Config, networks: dict[str, Network], key: str) -> str | dict[str, Any]:
    """The choice at "teacher.task_loss" or "student.recipe.sampling"."""
    role, *section, name = key.split(".")
    return getattr(config.recipe_of(networks[role]) if section else networks[role], name)


def _name(choice: str | dict[str, Any]) -> str:
    return choice if isinstance(choice, str) else choice["name"]
