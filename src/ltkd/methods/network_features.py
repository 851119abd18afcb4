"""Chooses the feature maps of student and teacher that a method compares, and says where a network has none.

Everything is read off one dry forward pass of both networks (`context.student`, `context.teacher`).
"""

import logging
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn

from ltkd.errors import UserError
from ltkd.methods.base import MethodContext
from ltkd.models.output import ModelOutput

logger = logging.getLogger(__name__)

T = TypeVar("T")


def pair_stages(student: Sequence[T], teacher: Sequence[T]) -> list[tuple[T, T]]:
    """The deepest stages of both, as many as the network with fewer has, shallow to deep."""
    number = min(len(student), len(teacher))
    return list(zip(student[-number:], teacher[-number:], strict=True))


def before_activation(output: ModelOutput) -> list[Tensor]:
    """The stages' maps before the last activation of each; after it where the network offers no others."""
    return output.preact_stages or output.stages


def check_stages(method: str, context: MethodContext, *, preact: Sequence[str] = (), last_only: bool = False) -> None:
    """UserError where a network has no feature maps; one warning line for each choice that the user might not expect:
    stages that are left out (unless only the last is compared), and, for the roles named in `preact`, maps after the
    activation for want of others."""
    for role, name, output in _networks(context):
        if not output.stages:
            raise UserError(
                f"method {method}: needs feature maps, but {role} {name} has none; choose another {role} or a method "
                "that needs logits only"
            )
        if role in preact and not output.preact_stages:
            logger.warning(
                "method %s: %s %s offers no maps before the stages' activations; those after them are used",
                method,
                role,
                name,
            )
    numbers = len(context.student.stages), len(context.teacher.stages)
    if numbers[0] != numbers[1] and not last_only:
        logger.warning(
            "method %s: %s has %d stages and %s %d; the last %d of both are paired",
            method,
            context.student_name,
            numbers[0],
            context.teacher_name,
            numbers[1],
            min(numbers),
        )


def check_embeddings(method: str, context: MethodContext) -> None:
    """UserError where a network has no pooled vector."""
    for role, name, output in _networks(context):
        if output.embedding is None:
            raise UserError(
                f"method {method}: needs the pooled vector that the classifier sees, but {role} {name} has none "
                "(its logits are not made by linear layers on pooled vectors)"
            )


def check_classifier_on_last_map(
    method: str, context: MethodContext, *, roles: Sequence[str], linear: bool = True
) -> None:
    """UserError unless the classifier works on the mean of the last map, in the networks of these roles.

    linear: and is a linear layer. The mean is looked up in the dry pass's numbers, so that whatever else lies between
    the map and the classifier (a normalisation, a further layer) is found out.
    """
    classifiers = {"student": context.networks.student_classifier, "teacher": context.networks.teacher_classifier}
    for role, name, output in _networks(context):
        if role not in roles:
            continue
        if not isinstance(classifiers[role], nn.Linear) and (linear or not _takes_vectors(classifiers[role])):
            kind = "no single layer makes its logits" if classifiers[role] is None else type(classifiers[role]).__name__
            raise UserError(f"method {method}: needs a linear classifier; that of {role} {name} is another ({kind})")
        pooled = output.stages[-1].float().mean(dim=(2, 3))
        seen = output.embedding.float()
        # generous, since the network may have run in bfloat16
        if pooled.shape != seen.shape or (pooled - seen).abs().max() > 0.05 * seen.abs().max():
            raise UserError(
                f"method {method}: needs a classifier on the mean of the last feature map; that of {role} {name} sees "
                "something else (a further layer or a normalisation lies between)"
            )


def _takes_vectors(classifier: nn.Module | None) -> bool:
    return classifier is not None and not isinstance(classifier, nn.Conv2d)


def _networks(context: MethodContext) -> list[tuple[str, str, ModelOutput]]:
    return [
        ("student", context.student_name, context.student),
        ("teacher", context.teacher_name, context.teacher),
    ]
