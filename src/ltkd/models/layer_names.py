"""Layer names of public distillation code, translated into those of our own networks.

RepDistiller and mdistiller name their layers alike. Their residual networks share the names of torchvision, and the
option-A network those of LDAM-DRW; both projects' MobileNets and VGG networks number the layers of a Sequential.
"""

import re
from collections.abc import Callable

from torch import nn

from ltkd.models.mobilenet import MobileNetV1, MobileNetV2
from ltkd.models.resnet import ResNet
from ltkd.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from ltkd.models.vgg import VGG
from ltkd.models.wide_resnet import WideResNet

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

_INVERTED_RESIDUAL = {"0": "expand", "1": "norm1", "3": "depthwise", "4": "norm2", "6": "project", "7": "norm3"}
_SEPARABLE = {"0": "depthwise", "1": "norm1", "3": "pointwise", "4": "norm2"}
_DOWN_BLOCK = {"1": "left_{}1", "2": "left_{}2", "3": "right_{}1", "4": "right_{}2", "5": "right_{}3"}


def _stage(match: re.Match[str]) -> str:
    """Counts stages from 0; the foreign names count from 1."""
    return f"stages.{int(match[1]) - 1}."


def _vgg_layer(match: re.Match[str]) -> str:
    """Convolution, normalisation and ReLU take three places each in a block."""
    position, kind = divmod(int(match[2]), 3)
    return f"blocks.{match[1]}.{position}.{('conv', 'norm', 'relu')[kind]}."


def _separable_layer(match: re.Match[str]) -> str:
    """The blocks stand in one row, behind the stem at 0."""
    block = int(match[1]) - 1
    for stage, rows in enumerate(MobileNetV1.STAGES):
        if block < len(rows):
            return f"stages.{stage}.{block}.{_SEPARABLE.get(match[2], match[2])}."
        block -= len(rows)
    return match[0]


def _inverted_layer(match: re.Match[str]) -> str:
    return f"groups.{match[1]}.{match[2]}.{_INVERTED_RESIDUAL.get(match[3], match[3])}."


def _down_layer(match: re.Match[str]) -> str:
    kind = "conv" if match[2] == "conv" else "norm"
    return match[1] + _DOWN_BLOCK[match[3]].format(kind) + "."


_STEM: Rules = ((r"^conv1\.", "stem."), (r"^bn1\.", "stem_norm."))
_BLOCKS: Rules = ((r"^layer(\d)\.", _stage), (r"bn(\d?)\.", r"norm\1."), (r"\.downsample\.", ".shortcut."))
_CLASSIFIER: Rules = ((r"^(fc|linear)\.", "classifier."),)

RULES: dict[type[nn.Module], Rules] = {
    ResNet: _STEM + _BLOCKS + _CLASSIFIER,
    ShuffleNetV1: _STEM + _BLOCKS + _CLASSIFIER,
    ShuffleNetV2: (
        *_STEM,
        (r"^conv2\.", "last."),
        (r"^bn2\.", "last_norm."),
        (r"^(layer\d\.0\.)(conv|bn)([1-5])\.", _down_layer),
        *_BLOCKS,
        *_CLASSIFIER,
    ),
    WideResNet: (
        (r"^conv1\.", "stem."),
        (r"^bn1\.", "norm."),
        (r"^block(\d)\.layer\.", _stage),
        (r"bn(\d)\.", r"norm\1."),
        (r"\.convShortcut\.", ".shortcut."),
        *_CLASSIFIER,
    ),
    VGG: ((r"^block(\d)\.(\d+)\.", _vgg_layer),),
    MobileNetV2: (
        (r"^conv1\.0\.", "stem."),
        (r"^conv1\.1\.", "stem_norm."),
        (r"^blocks\.(\d)\.(\d)\.conv\.(\d)\.", _inverted_layer),
        (r"^conv2\.0\.", "last."),
        (r"^conv2\.1\.", "last_norm."),
        (r"^classifier\.0\.", "classifier."),
    ),
    MobileNetV1: (
        (r"^model\.0\.0\.", "stem."),
        (r"^model\.0\.1\.", "stem_norm."),
        (r"^model\.(\d+)\.(\d)\.", _separable_layer),
        *_CLASSIFIER,
    ),
}


def own_name(network: nn.Module, name: str) -> str:
    """The network's own name of a tensor that RepDistiller, mdistiller or torchvision calls `name`.

    A name that is not among theirs, and every name of a network that is not our own, stays as it is.
    """
    for pattern, replacement in RULES.get(type(network), ()):
        name = re.sub(pattern, replacement, name)
    return name
