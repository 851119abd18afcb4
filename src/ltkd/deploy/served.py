"""The network as it is deployed: raw images of any size in, logits out."""

import torch
from torch import Tensor, nn

from ltkd.deploy.description import Description
from ltkd.models.adapter import AdaptedModel


class ServedNetwork(nn.Module):
    """uint8 images [B, channels, H, W] to logits [B, classes] float32: scaled, cut at the centre, normalised.

    Scaling is that of `data.decoding`: the shorter side to the network's size (8/7 of it after training on resized
    crops), bilinear and antialiased, rounded to
    whole levels after each direction. It is two matrix products whose weights follow from H and W, so that exported
    programs take any of them. Images that have the network's size already come through unchanged.
    """

    def __init__(self, network: nn.Module, about: Description) -> None:
        super().__init__()
        self.network = network.network if isinstance(network, AdaptedModel) else network  # hooks are for training
        self.size, self.shorter_side = about.image_size, about.shorter_side
        self.register_buffer("mean", torch.tensor(about.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(about.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.arange(images.shape[2], device=images.device).float()
        columns = torch.arange(images.shape[3], device=images.device).float()
        height, width = rows[-1] + 1, columns[-1] + 1
        shorter = torch.minimum(height, width)
        whole = (height == self.size) & (width == self.size)
        target = torch.where(whole, self.size, self.shorter_side)
        across = self._weights(columns, target * width / shorter, width)
        down = self._weights(rows, target * height / shorter, height)
        pixels = (images.float() @ across.T).round().clamp(0, 255)
        pixels = (down @ pixels).round().clamp(0, 255)
        # a tensor, as in training: division by a number is multiplication by its reciprocal on CUDA
        normalised = (pixels / torch.full_like(self.mean, 255.0) - self.mean) / self.std
        output = self.network(normalised.contiguous())
        return (output if isinstance(output, Tensor) else output.logits).float()

    def _weights(self, places: Tensor, scaled: Tensor, length: Tensor) -> Tensor:
        """Shares [size, length] of the pixels of a row in each pixel of the scaled and cut one."""
        scaled = torch.floor(scaled)  # of which the middle `size` are kept
        first = torch.round((scaled - self.size) / 2)
        step = length / scaled
        centres = (torch.arange(self.size, device=places.device) + 0.5 + first) * step
        distance = (places + 0.5 - centres[:, None]) / step.clamp_min(1)
        shares = (1 - distance.abs()).clamp_min(0)
        return shares / shares.sum(1, keepdim=True)
