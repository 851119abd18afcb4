"""Networks of timm and torchvision behind our ModelOutput. Both libraries are slow to import, so they are imported
when first used.

Stages of an adapted network: the last map at each spatial resolution, shallow to deep. So a stem with a resolution of
its own (the 7x7 convolution of an ImageNet ResNet) is the first map here, unlike in our own networks. timm's networks
of a single resolution, the plain vision transformers (ViT, DeiT) among them, have no such order: their stages are the
maps after each quarter of their blocks, [B, D, H, W] of the patch tokens (class and distillation tokens left out);
torchvision's transformers offer none. Whether a map comes after an activation is the library's choice; `preact_stages`
is always None, since the libraries do not offer it.

The embedding is what the last layer sees: of a vision transformer the class token. Of a network that averages the
logits of several heads (a distilled DeiT: class and distillation token) it is what they see, side by side.
"""

import logging
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ltkd.errors import UnknownName, UserError
from ltkd.models.output import ModelOutput

logger = logging.getLogger(__name__)


NUM_DEPTHS = 4  # stages of a network of a single resolution: as many as the four-stage networks of our own


class AdaptedModel(nn.Module):
    """A foreign `network` that returns logits, with hooks (never changing a value) that catch its embedding and maps.

    heads               the layers that make the logits, more than one where their logits are averaged; their inputs
                        (pooled, if a map) are the embedding, which is None without a head
    maps_channels_last  the modules' 4-D outputs are [B, H, W, C]
    """

    def __init__(self, network: nn.Module, heads: list[nn.Module], *, maps_channels_last: bool = False) -> None:
        super().__init__()
        self.network = network
        self.maps_channels_last = maps_channels_last
        self._head_names = [next(name for name, module in network.named_modules() if module is head) for head in heads]
        self._embeddings: list[Tensor] = []
        self._maps: dict[tuple[int, int], Tensor] | None = None
        # hooks are bound methods, because a deep copy of the model then carries hooks that belong to the copy
        for head in heads:
            head.register_forward_pre_hook(self._catch_embedding)
        self._library_gives_maps = hasattr(network, "forward_intermediates") and hasattr(network, "forward_head")
        if not self._library_gives_maps:
            for module in self._trunk():
                module.register_forward_hook(self._catch_map)

    @property
    def classifier(self) -> nn.Module | None:
        # not an attribute of its own, which would write its weights twice into the state dict
        return self.network.get_submodule(self._head_names[0]) if len(self._head_names) == 1 else None

    def replace_classifier(self, classifier: nn.Module) -> None:
        """Put another layer in the classifier's place. Its input is the embedding from now on."""
        self.network.set_submodule(self._head_names[0], classifier)
        classifier.register_forward_pre_hook(self._catch_embedding)

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        self._embeddings = []
        if features and self._library_gives_maps:
            last, intermediates = self.network.forward_intermediates(images, output_fmt="NCHW")
            logits = self.network.forward_head(last)
            stages = _stages_of(intermediates)
        else:
            self._maps = {} if features else None
            logits = self.network(images)
            stages = list(self._maps.values()) if features else []
        embedding = torch.cat(self._embeddings, dim=1) if self._embeddings else None
        self._embeddings, self._maps = [], None  # keep no tensor alive between steps
        return ModelOutput(logits, stages or None, None, embedding)

    def _catch_embedding(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        self._embeddings.append(x.mean(dim=(2, 3)) if x.ndim == 4 else x)

    def _catch_map(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self._maps is None or not isinstance(output, Tensor):
            return
        if output.ndim == 3:  # from here on the network works on tokens: what came before was a patch embedding
            self._maps.clear()
        elif output.ndim == 4:
            output = output.permute(0, 3, 1, 2) if self.maps_channels_last else output
            self._maps[tuple(output.shape[2:])] = output

    def _trunk(self) -> list[nn.Module]:
        """The modules in a row whose outputs are maps: children, of containers the grandchildren; no head."""
        heads = {name.partition(".")[0] for name in self._head_names}
        trunk = []
        for name, child in self.network.named_children():
            if name in heads | {"avgpool", "dropout", "norm", "permute"}:
                continue
            inside = isinstance(child, nn.Sequential | nn.ModuleList)
            trunk += list(child.children()) if inside else [child]
        return trunk


def _stages_of(maps: list[Tensor]) -> list[Tensor]:
    """The last map at each resolution; of a single resolution the maps at even depths, the last one included."""
    by_resolution = {tuple(feature_map.shape[2:]): feature_map for feature_map in maps}
    if len(by_resolution) > 1:
        return list(by_resolution.values())
    count = min(NUM_DEPTHS, len(maps))
    return [maps[(position + 1) * len(maps) // count - 1] for position in range(count)]


def _timm_names() -> list[str]:
    import timm

    return timm.list_models()


def _torchvision_names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)  # classification; detection and the like live in modules below


LIBRARIES: dict[str, Callable[[], list[str]]] = {"timm": _timm_names, "torchvision": _torchvision_names}


def list_library(library: str, pattern: str) -> list[str]:
    """Sorted names of a library's classification networks that match a wildcard pattern."""
    return sorted(name for name in LIBRARIES[library]() if fnmatchcase(name, pattern))


def library_factory(library: str, name: str) -> Callable[..., AdaptedModel]:
    """The factory of `<library>/<name>`; UserError with close matches if the library has no such network."""
    names = LIBRARIES[library]()
    architecture, _, tag = name.partition(".")  # timm: the part after the dot names one set of published weights
    if architecture not in names or (tag and library == "torchvision"):
        close = [f"{library}/{match}" for match in get_close_matches(name, names, n=5)]
        guess = f"did you mean one of: {', '.join(close)}?" if close else f"see list_models('{library}/*')"
        raise UnknownName("model", f"{library}/{name}", f"; {guess}")
    build_network = {"timm": _build_timm, "torchvision": _build_torchvision}[library]

    def build(
        *,
        num_classes: int,
        in_channels: int = 3,
        pretrained: bool = False,
        new_classifier: bool = False,
        **arguments: Any,
    ) -> AdaptedModel:
        full_name = f"{library}/{name}"
        if new_classifier and not pretrained:
            logger.warning("model %s: new_classifier has no effect without pretrained=true", full_name)
        try:
            return build_network(name, num_classes, in_channels, pretrained, new_classifier, arguments)
        except UserError:
            raise
        except TypeError as error:
            raise UserError(f"model {full_name}: arguments {sorted(arguments)} were not accepted ({error})") from error
        except (OSError, RuntimeError, ValueError) as error:
            action = "its pretrained weights could not be had (network? cache?)" if pretrained else "could not be built"
            raise UserError(f"model {full_name}: {action}: {error}") from error

    return build


def _check_pretrained_classes(name: str, of_weights: int, num_classes: int, new_classifier: bool) -> None:
    if of_weights != num_classes and not new_classifier:
        raise UserError(
            f"model {name}: its pretrained weights have {of_weights} classes, but the data has {num_classes}; "
            "new_classifier=true keeps the features and starts a new classifier"
        )


def _build_timm(
    name: str, num_classes: int, in_channels: int, pretrained: bool, new_classifier: bool, arguments: dict[str, Any]
) -> AdaptedModel:
    import timm

    if pretrained:  # all that can be known without downloading is checked first
        published = timm.get_pretrained_cfg(name)
        if published is None or not published.has_weights:
            raise UserError(f"model timm/{name}: timm has no pretrained weights for it")
        _check_pretrained_classes(f"timm/{name}", published.num_classes, num_classes, new_classifier)
    network = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **arguments)
    if pretrained and new_classifier:
        network.reset_classifier(num_classes)
    classifier = network.get_classifier()
    several = isinstance(classifier, tuple | list | nn.ModuleList)  # distilled transformers, CrossViT
    heads = [_last_layer(head) for head in (classifier if several else [classifier])]
    if getattr(network, "aux_head", None) is not None:  # VOLO: the best of all patch tokens is added to the logits
        heads = []
    return AdaptedModel(network, [head for head in heads if head is not None])


def _build_torchvision(
    name: str, num_classes: int, in_channels: int, pretrained: bool, new_classifier: bool, arguments: dict[str, Any]
) -> AdaptedModel:
    from torchvision import models

    full_name = f"torchvision/{name}"
    if in_channels != 3:
        raise UserError(
            f"model {full_name}: takes 3 channels, but the data has {in_channels}; timm/ and our own networks take any"
        )
    if arguments.get("aux_logits"):
        raise UserError(f"model {full_name}: aux_logits: auxiliary classifiers are not supported; leave it out")
    if name in {"googlenet", "inception_v3"}:
        # without these, training mode returns three sets of logits, and building warns about a coming change of default
        arguments = {"aux_logits": False, **({} if pretrained else {"init_weights": True}), **arguments}
    if pretrained:
        weights = models.get_model_weights(name).DEFAULT
        of_weights = len(weights.meta["categories"])
        _check_pretrained_classes(full_name, of_weights, num_classes, new_classifier)
        network = models.get_model(name, weights=weights, **arguments)
        if new_classifier:
            _renew_classifier(network, num_classes)
    else:
        network = models.get_model(name, num_classes=num_classes, **arguments)
    head = _last_layer(network)
    channels_last = isinstance(network, models.SwinTransformer)
    return AdaptedModel(network, [] if head is None else [head], maps_channels_last=channels_last)


def _last_layer(network: nn.Module) -> nn.Module | None:
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return layers[-1] if layers else None


def _renew_classifier(network: nn.Module, num_classes: int) -> None:
    old = _last_layer(network)
    name = next(name for name, module in network.named_modules() if module is old)
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    else:
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)
    network.set_submodule(name, new)
