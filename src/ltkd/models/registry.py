"""Builds a network from its name: our own zoo by plain name, the others as `timm/<name>` and `torchvision/<name>`."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatchcase

from torch import nn

from ltkd.errors import UserError, unknown_name
from ltkd.models import adapter, mobilenet, resnet, shufflenet, vgg, wide_resnet

FACTORIES: dict[str, Callable[..., nn.Module]] = {
    name: build
    for family in (resnet, wide_resnet, vgg, mobilenet, shufflenet)
    for name, build in family.FACTORIES.items()
}


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names that match a wildcard: our own, or a library's for patterns like timm/* or torchvision/res*."""
    library, _, inner = pattern.partition("/")
    if library in adapter.LIBRARIES:
        return [f"{library}/{name}" for name in adapter.list_library(library, inner or "*")]
    return sorted(name for name in FACTORIES if fnmatchcase(name, pattern))


def model_factory(name: str) -> Callable[..., nn.Module]:
    """The function that builds `name`; its keyword-only signature says what the network can be given.

    Own networks take num_classes, in_channels and their own options; those of a library also pretrained,
    new_classifier and whatever the library's function takes. UserError for an unknown name, with the closest known
    ones.
    """
    library, _, inner = name.partition("/")
    if library in adapter.LIBRARIES:
        return adapter.library_factory(library, inner)
    if name not in FACTORIES:
        raise unknown_name("model", name, [*FACTORIES, *(f"{library}/<name>" for library in adapter.LIBRARIES)])
    return FACTORIES[name]


def build_model(
    name: str, num_classes: int, *, in_channels: int = 3, pretrained: bool = False, **arguments
) -> nn.Module:
    """A network with `forward(images [B, in_channels, H, W], *, features=False) -> ModelOutput` and logits of
    num_classes columns.

    pretrained: start from the library's published weights (timm/ and torchvision/ only); they must have been trained
    for num_classes classes unless new_classifier=True keeps the features and starts a new classifier.
    UserError for an unknown name or argument, and for weights that cannot be had.
    """
    factory = model_factory(name)
    if name not in FACTORIES:
        return factory(num_classes=num_classes, in_channels=in_channels, pretrained=pretrained, **arguments)
    if pretrained:
        libraries = " and ".join(f"{library}/" for library in adapter.LIBRARIES)
        raise UserError(
            f"model {name}: pretrained weights exist only for {libraries} networks; load a file of weights instead"
        )
    unknown = arguments.keys() - inspect.signature(factory).parameters.keys()
    if unknown:
        raise UserError(f"model {name}: takes no argument {', '.join(sorted(unknown))}")
    return factory(num_classes=num_classes, in_channels=in_channels, **arguments)
