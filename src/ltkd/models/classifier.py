"""The last layer of a network: its kinds by name, the cosine classifier, and changing one for another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.choices import look_up, name_and_settings
from ltkd.errors import UserError
from ltkd.models.adapter import AdaptedModel
from ltkd.ranges import Positive


class CosineClassifier(nn.Module):
    """logits_k = scale * cos(x, w_k), without a bias: [B, D] -> [B, C], in float32 or better also under autocast.

    The scale is part of the logits, so that their softmax means something wherever they are used: in training, at test
    time and in a teacher. Half precision would round logits of up to 30 to eighths.
    """

    def __init__(self, in_features: int, num_classes: int, *, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random directions of length 1: the gradient shrinks with the length, the cosine does not depend on it."""
        with torch.no_grad():
            self.weight.uniform_(-1, 1)
            self.weight.copy_(F.normalize(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return self.scale * F.linear(F.normalize(x), F.normalize(self.weight))


def keep_classifier(model: nn.Module) -> None:
    """The linear layer that the network comes with."""


def use_cosine_classifier(model: nn.Module, *, scale: Positive = 30.0) -> None:
    """A `CosineClassifier` in its place, whose directions start at random. Scale: GML's (arXiv:2305.01160)."""
    replace_classifier(
        model, lambda old: CosineClassifier(old.in_features, old.out_features, scale=scale), "classifier: cosine"
    )


CLASSIFIERS: dict[str, Callable[..., None]] = {"linear": keep_classifier, "cosine": use_cosine_classifier}


def classifier_kind(name: str) -> Callable[..., None]:
    """The function that gives a new network a classifier of that name. UserError if unknown."""
    return look_up("classifier", name, CLASSIFIERS)


def give_classifier(model: nn.Module, choice: str | Mapping[str, Any]) -> None:
    """Change the classifier of a new network, in place, to the kind of a name or {name: ..., its settings}."""
    name, settings = name_and_settings(choice)
    classifier_kind(name)(model, **settings)


def linear_classifier(model: nn.Module, purpose: str) -> nn.Linear:
    """The one linear layer that makes the logits. UserError, beginning with `purpose`, where there is none."""
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        network = model.network if isinstance(model, AdaptedModel) else model
        layer = f"its last layer is {type(classifier).__name__}" if classifier is not None else "it has no single one"
        raise UserError(
            f"{purpose} needs a network whose logits come from one linear layer; {type(network).__name__}: {layer}"
        )
    return classifier


def replace_classifier(model: nn.Module, make: Callable[[nn.Linear], nn.Module], purpose: str) -> None:
    """Put make(old) where the network's linear classifier is. UserError, beginning with `purpose`, without one."""
    set_classifier(model, make(linear_classifier(model, purpose)))


def set_classifier(model: nn.Module, classifier: nn.Module) -> None:
    """Put `classifier` where the network's is: the layer that makes the logits."""
    if isinstance(model, AdaptedModel):
        model.replace_classifier(classifier)
    else:
        model.classifier = classifier


def order_classes(model: nn.Module, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Bring the classifier's outputs, which are called `names`, into the order of the names `wanted`.

    UserError where the two are not the same names, each once.
    """
    unknown = sorted(set(names) ^ set(wanted))
    if unknown or len(names) != len(wanted):
        shown = ", ".join(map(repr, unknown[:3])) or "a name twice"
        raise UserError(
            f"teacher.class_names: should be the data set's {len(wanted)} names in the file's order: {shown}"
        )
    classifier = linear_classifier(model, "teacher.class_names")
    order = [list(names).index(name) for name in wanted]
    with torch.no_grad():
        classifier.weight.copy_(classifier.weight[order].clone())
        if classifier.bias is not None:
            classifier.bias.copy_(classifier.bias[order].clone())
