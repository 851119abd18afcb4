"""Residual networks (He et al. 2016, arXiv 1512.03385), as the distillation field counts them.

For small images: three-stage networks `resnet<depth>` (stem 16, stages 16/32/64) and `resnet<depth>x4` (stem 32, stages
64/128/256), the option-A network `resnet32_a` of the long-tail field, and four-stage `resnet18` / `resnet50` (64 to
512) with a 3x3 stem of stride 1. For ImageNet: `imagenet_resnet18` / `34` / `50` with the paper's stem. Any input size
works, since the last maps are pooled globally.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.models.layers import PositiveInt, classify, start_convolutions
from ltkd.models.output import ModelOutput


class PaddingShortcut(nn.Module):
    """Option A of the ResNet paper: every stride-th pixel, zeros as new channels on both sides; no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def projection_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B of the ResNet paper: a 1x1 convolution with batch normalisation."""
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


Shortcut = Callable[[int, int, int], nn.Module]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut. Returns the sum *before* its activation, which the network applies."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same_shape = stride == 1 and in_channels == width
        self.shortcut = nn.Identity() if same_shape else shortcut(in_channels, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.norm2

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(residual)) + self.shortcut(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution to four times the width; as BasicBlock, before the activation."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else shortcut(in_channels, out_channels, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.norm3

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.norm1(self.conv1(x)))
        residual = F.relu(self.norm2(self.conv2(residual)))
        return self.norm3(self.conv3(residual)) + self.shortcut(x)


class ResNet(nn.Module):
    """A stem, stages of residual blocks (stride 2 from the second on), global average pooling, a linear `classifier`.

    The stem is a 3x3 convolution of stride 1; with `imagenet_stem` a 7x7 one of stride 2 and 3x3 max pooling of
    stride 2.

    `forward(images [B, in_channels, H, W], features=...)`: a stage's map is the output of its last block after ReLU,
    its pre-activation the same sum before ReLU; both come from one pass, so batch normalisation sees each batch once.
    The stem is not a stage.
    """

    def __init__(
        self,
        *,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        stem_width: int,
        widths: tuple[int, ...],
        num_classes: int,
        in_channels: int,
        shortcut: Shortcut = projection_shortcut,
        imagenet_stem: bool = False,
    ) -> None:
        super().__init__()
        size, stride = (7, 2) if imagenet_stem else (3, 1)
        self.stem = nn.Conv2d(in_channels, stem_width, size, stride, padding=size // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem_width)
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet_stem else nn.Identity()
        self.stages = nn.ModuleList()
        channels = stem_width
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = nn.ModuleList()
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(channels, width, stride, shortcut))
                channels = block.expansion * width
            self.stages.append(blocks)
        self.classifier = nn.Linear(channels, num_classes)
        start_convolutions(self)

    @property
    def preact_norms(self) -> list[nn.BatchNorm2d | None]:
        """The last batch normalisation of each stage's last block; the shortcut is added to its output."""
        return [blocks[-1].last_norm for blocks in self.stages]

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        maps, preactivations = [], []
        x = self.stem_pool(F.relu(self.stem_norm(self.stem(images))))
        for blocks in self.stages:
            for block in blocks.children():
                preactivation = block(x)
                x = F.relu(preactivation)  # not in place: the value before it is wanted too
            if features:
                maps.append(x)
                preactivations.append(preactivation)
        return classify(self.classifier, x, maps, preactivations)


def _three_stages(
    depth: int, *, stem_width: int = 16, widths: tuple[int, ...] = (16, 32, 64), **options
) -> Callable[..., ResNet]:
    """Factory of a three-stage network of `depth` layers: 6 n + 2, n basic blocks in each stage."""

    def build(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> ResNet:
        return ResNet(
            block=BasicBlock,
            depths=((depth - 2) // 6,) * 3,
            stem_width=stem_width,
            widths=widths,
            num_classes=num_classes,
            in_channels=in_channels,
            **options,
        )

    return build


def _four_stages(
    block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], *, imagenet_stem: bool = False
) -> Callable[..., ResNet]:
    """Factory of a network of the paper's ImageNet family, with a stem for small images unless said otherwise."""

    def build(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> ResNet:
        return ResNet(
            block=block,
            depths=depths,
            stem_width=64,
            widths=(64, 128, 256, 512),
            num_classes=num_classes,
            in_channels=in_channels,
            imagenet_stem=imagenet_stem,
        )

    return build


FACTORIES: dict[str, Callable[..., ResNet]] = {
    **{f"resnet{depth}": _three_stages(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": _three_stages(depth, stem_width=32, widths=(64, 128, 256)) for depth in (8, 32)},
    "resnet32_a": _three_stages(32, shortcut=PaddingShortcut),
    "resnet18": _four_stages(BasicBlock, (2, 2, 2, 2)),
    "resnet50": _four_stages(Bottleneck, (3, 4, 6, 3)),
    "imagenet_resnet18": _four_stages(BasicBlock, (2, 2, 2, 2), imagenet_stem=True),
    "imagenet_resnet34": _four_stages(BasicBlock, (3, 4, 6, 3), imagenet_stem=True),
    "imagenet_resnet50": _four_stages(Bottleneck, (3, 4, 6, 3), imagenet_stem=True),
}
