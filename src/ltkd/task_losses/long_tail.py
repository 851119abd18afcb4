"""Task losses for long-tailed labels that weigh classes, images or margins. They register themselves; see base.py."""

import logging
import math
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from ltkd import losses
from ltkd.models.classifier import CosineClassifier, linear_classifier, replace_classifier
from ltkd.ranges import Fraction, NonNegative, Positive
from ltkd.task_losses.base import TaskLoss, register_task_loss
from ltkd.task_losses.class_counts import check_every_class

logger = logging.getLogger(__name__)

Beta = Annotated[float, Ge(0), Lt(1)]  # of the effective number of images; 0 weighs all classes alike

DEFAULT_BETA = 0.9999  # the value in common use on CIFAR-LT (arXiv:1901.05555 tries .9, .99, .999 and .9999)


class ReweightedLoss(TaskLoss):
    """A task loss with class weights by effective numbers of images, which may come late.

    deferred: share of the epochs after which the weights are in force, until then all are 1 (deferred re-weighting,
    DRW, arXiv:1906.07413: .8, epoch 161 of 200 is the first with them). 0: from the start; null: never.
    `forward` finds the beta of the epoch in `current_beta`.
    """

    beta: Beta = DEFAULT_BETA
    deferred: Fraction | None

    def build(self) -> None:
        if self.deferred is None and self.beta != DEFAULT_BETA:
            logger.warning("task_loss: beta has no effect without deferred; deferred=0 weighs classes from the start")
        if self.deferred is not None:
            check_every_class(f"task_loss: {type(self).__name__}", self.class_counts, remedy="task_loss=ce")
        # On the device, so that a captured training step sees each epoch's value; beta = 0 makes all weights 1. In
        # float64, as beta^n is lost to the rounding of float32. Not saved: the epoch determines it.
        beta_at_first = self.beta if self.deferred == 0 else 0.0
        self.register_buffer("current_beta", torch.tensor(beta_at_first, dtype=torch.float64), persistent=False)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        in_force = self.deferred is not None and epoch > round(self.deferred * epochs)
        self.current_beta.fill_(self.beta if in_force else 0.0)


@register_task_loss("class_balanced")
class ClassBalanced(ReweightedLoss):
    """Class-balanced cross-entropy, arXiv:1901.05555.

    divide_by: images (the paper) or weights (a weighted mean, as torch and the code of LDAM-DRW have it).
    """

    corrects_prior = True

    deferred: Fraction = 0.0
    divide_by: Literal["images", "weights"] = "images"

    def build(self) -> None:
        super().build()
        self.reads_batch = self.divide_by == "weights"

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        by_images = self.divide_by == "images"
        loss = losses.class_balanced_cross_entropy if by_images else losses.weighted_cross_entropy
        return loss(logits, labels, self.class_counts, beta=self.current_beta)


@register_task_loss("focal")
class Focal(ReweightedLoss):
    """Focal loss of a softmax, arXiv:1708.02002; without class weights unless `deferred` says from when on."""

    gamma: NonNegative = 1.0  # as in the comparisons of LDAM-DRW
    deferred: Fraction | None = None

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        class_counts = None if self.deferred is None else self.class_counts
        return losses.focal(logits, labels, class_counts, gamma=self.gamma, beta=self.current_beta)


@register_task_loss("class_balanced_focal")
class ClassBalancedFocal(ReweightedLoss):
    """Class-balanced focal loss of sigmoids, arXiv:1901.05555.

    Each class is a question of its own, so the classifier's bias starts at -log(C - 1), where all classes together have
    the probability of one, and has no weight decay. The prediction is the largest logit, as everywhere; figures that
    read a softmax (group mass, calibration, distillation from this network) see logits that were not trained for one.
    """

    corrects_prior = True
    softmax_logits = False

    gamma: NonNegative = 1.0  # the paper tries .5, 1 and 2
    deferred: Fraction = 0.0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return losses.class_balanced_focal(logits, labels, self.class_counts, beta=self.current_beta, gamma=self.gamma)

    def adapt_network(self, model: nn.Module) -> None:
        bias = linear_classifier(model, "task_loss: class_balanced_focal").bias
        if bias is not None:
            nn.init.constant_(bias, -math.log(len(self.class_counts) - 1))

    def network_parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        (group,) = super().network_parameter_groups(model)
        bias = getattr(getattr(model, "classifier", None), "bias", None)
        decayed = [parameter for parameter in group["params"] if parameter is not bias]
        undecayed = [parameter for parameter in group["params"] if parameter is bias]
        return [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]


@register_task_loss("ldam")
class LDAM(ReweightedLoss):
    """LDAM with deferred re-weighting (LDAM-DRW), arXiv:1906.07413; deferred=null is LDAM alone.

    The network gets a cosine classifier without bias, whose logits carry the scale: they are used as they are at test
    time and in a teacher.
    """

    needs_every_class = True
    takes_mixed_labels = False
    replaces_classifier = True

    max_margin: NonNegative = 0.5
    scale: Positive = 30.0
    deferred: Fraction | None = 0.8

    def build(self) -> None:
        super().build()
        self.reads_batch = self.deferred is not None  # a weighted mean

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return losses.ldam(
            logits / self.scale,
            labels,
            self.class_counts,
            max_margin=self.max_margin,
            scale=self.scale,
            beta=self.current_beta,
        )

    def adapt_network(self, model: nn.Module) -> None:
        replace_classifier(
            model,
            lambda old: CosineClassifier(old.in_features, old.out_features, scale=self.scale),
            "task_loss: ldam",
        )
