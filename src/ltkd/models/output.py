"""The output of every network, ours or timm's or torchvision's."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class ModelOutput:
    """The result of `network(images, features=...)`.

    - logits [B, C]
    - stages: feature maps [B, C_k, H_k, W_k] after each stage's last activation, shallow to deep; None unless
      features=True
    - preact_stages: the same maps before that activation; None where the network does not offer them
    - embedding [B, D], pooled: exactly what the classifier sees; of several classifiers whose logits are averaged what
      they see side by side; None where the logits are not made by linear layers of pooled vectors alone

    The stem is not a stage: `stages[0]` is the output of the first stage.
    """

    logits: Tensor
    stages: list[Tensor] | None = None
    preact_stages: list[Tensor] | None = None
    embedding: Tensor | None = None
