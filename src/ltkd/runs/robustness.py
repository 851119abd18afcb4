"""Accuracy under attack, on test images with small changes that are made to mislead the network itself.

FGSM (Goodfellow et al., arXiv:1412.6572): one step of the whole radius along the sign of the loss's gradient. PGD
(Madry et al., arXiv:1706.06083): ten steps of a quarter of it from a random start. Both stay within 8/255 of each pixel
and within the range of pixels. White-box attacks of one start: an upper bound of the accuracy that a stronger attack
would leave, comparable between networks.

Cost: 14 passes forward and 11 backward per image and network, in float32, whatever the training ran in.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.data import DatasetConfig
from ltkd.loop.evaluate import summarize
from ltkd.methods import Method
from ltkd.models import evaluating
from ltkd.results.result import Robustness, UnderAttack
from ltkd.setup import Setup

RADIUS, STEP, STEPS = 8 / 255, 2 / 255, 10  # of pixel values in 0 .. 1
SEED = 0  # of the random starts: the same for every network and on every device
BATCH_SIZE = 250


@dataclass(frozen=True)
class PixelSpace:
    """Normalised values of 0, 1 and a unit of a pixel in each channel, [1, C, 1, 1]."""

    lowest: Tensor
    highest: Tensor
    unit: Tensor

    @classmethod
    def of(cls, dataset: DatasetConfig, device: torch.device) -> "PixelSpace":
        mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (dataset.mean, dataset.std))
        return cls((0 - mean) / std, (1 - mean) / std, 1 / std)


def accuracy_under_attack(
    setup: Setup, method: Method, student: nn.Module, teacher: nn.Module | None
) -> Robustness | None:
    """Attack student and teacher and return their accuracies in %; None where neither method nor user asks for it."""
    settings = setup.config.evaluation
    if not (method.reports_robustness if settings.robustness == "auto" else settings.robustness):
        return None
    rows = balanced_rows(setup.test.labels.cpu(), settings.robustness_images).to(setup.device)
    return {
        "images": len(rows),
        "radius": RADIUS,
        "step": STEP,
        "steps": STEPS,
        "student": _accuracies(setup, student, rows),
        "teacher": None if teacher is None else _accuracies(setup, teacher, rows),
    }


def balanced_rows(labels: Tensor, number: int | None) -> Tensor:
    """The first images of every class, as many of each as possible: rows [number] in ascending order; None: all."""
    order = labels.argsort(stable=True)
    of_class = torch.bincount(labels)
    starts = of_class.cumsum(0) - of_class
    position = torch.empty_like(order)
    position[order] = torch.arange(len(labels)) - starts[labels[order]]  # within its class
    return position.argsort(stable=True)[: len(labels) if number is None else number].sort().values


def _accuracies(setup: Setup, model: nn.Module, rows: Tensor) -> UnderAttack:
    space = PixelSpace.of(setup.config.dataset, setup.device)
    generator = torch.Generator().manual_seed(SEED)
    logits: dict[str, list[Tensor]] = {"clean": [], "fgsm": [], "pgd": []}
    with evaluating(model):
        for part in rows.split(BATCH_SIZE):
            centre = torch.full_like(part, setup.test.crop_padding)
            images = setup.test.views(part, centre, centre, torch.zeros_like(part, dtype=torch.bool))
            labels = setup.test.labels[part]
            start = (2 * torch.rand(images.shape, generator=generator).to(images) - 1) * RADIUS * space.unit
            attacked = {
                "clean": images,
                "fgsm": attack(model, images, labels, space, start=0 * images, steps=1, step=RADIUS),
                "pgd": attack(model, images, labels, space, start=start, steps=STEPS, step=STEP),
            }
            with torch.no_grad():
                for name, batch in attacked.items():
                    logits[name].append(model(batch).logits.float().cpu())
    labels = setup.test.labels[rows].cpu()
    evaluations = {name: summarize(torch.cat(parts), labels, setup.data.split) for name, parts in logits.items()}
    return {
        name: {"all": evaluation.all, "per_group": evaluation.per_group} for name, evaluation in evaluations.items()
    }


def attack(
    model: nn.Module, images: Tensor, labels: Tensor, space: PixelSpace, *, start: Tensor, steps: int, step: float
) -> Tensor:
    """Move images + start `steps` times by `step` in each pixel's value towards a larger cross-entropy of the label.

    Never further than RADIUS from the images, nor out of the range of pixels. images, start [B, C, H, W], normalised.
    """
    lowest = torch.maximum(images - RADIUS * space.unit, space.lowest)
    highest = torch.minimum(images + RADIUS * space.unit, space.highest)
    attacked = (images + start).clamp(lowest, highest)
    for _ in range(steps):
        attacked = attacked.detach().requires_grad_()
        loss = F.cross_entropy(model(attacked).logits, labels, reduction="sum")  # each image's gradient is its own
        (gradient,) = torch.autograd.grad(loss, attacked)
        attacked = (attacked + step * space.unit * gradient.sign()).clamp(lowest, highest)
    return attacked.detach()
