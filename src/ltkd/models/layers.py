"""The parts that our own networks share. A network's file holds one family, and each of its classes says which maps
are its stages."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from ltkd.models.output import ModelOutput

PositiveInt = Annotated[int, Ge(1)]


def classify(classifier: nn.Linear, last: Tensor, stages: list[Tensor], preact_stages: list[Tensor]) -> ModelOutput:
    """The end of every own network: the map [B, D, H, W] `last` pooled globally, then the linear classifier.

    Empty lists, where no features were asked for, become None.
    """
    embedding = last.mean(dim=(2, 3))
    return ModelOutput(classifier(embedding), stages or None, preact_stages or None, embedding)


def start_convolutions(model: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / (kernel area * output channels)) (He et al. 2015, by fan-out;
    the groups of a grouped convolution are not counted) and its bias, where it has one, 0.

    Batch normalisation starts at scale 1 and shift 0 by itself.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def start_classifier(classifier: nn.Linear) -> None:
    """The small start of VGG and MobileNetV2 in the field's code: weights from N(0, 0.01^2), bias 0."""
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
