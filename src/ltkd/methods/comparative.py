"""Groups of images compared, and the comparison distilled."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, register
from ltkd.methods.partners import Partner, draw_partners
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative


@register("ckd")
class ComparativeKD(Method):
    """task_weight * task + weight * mean((D_s - D_t)^2) + label_weight * mean((D_s - D_y)^2).

    D compares groups of group_size images of the batch: the mean logits of the first half (rounded up) minus those of
    the second. With group_size 2 it is the difference of an image and its partner. Every image begins a group of its
    own; partner "permutation": the others follow it on a random cycle through the batch; "class_balanced": each is
    drawn with replacement, first a class of the batch and then one of its images.

    The paper's objective is task_weight=0, weight=1, label_weight=1 with group_size 2 or 3. Its setting, few calls of
    the teacher (up to 100,000 fixed groups of 2,000 to 6,000 images with stored teacher logits, student and teacher
    under different augmentations, early stopping), is not carried over: here every batch makes its groups, and student
    and teacher see the same views. The default, its comparison beside the task loss, is a choice.
    """

    reads_labels = True
    reads_batch = True
    paper = "Wilf et al.: Comparative Knowledge Distillation, arXiv:2311.02253 (WACV 2025)"
    fidelity = "adapted"

    weight: NonNegative
    label_weight: NonNegative
    group_size: Annotated[int, Ge(2)]
    partner: Partner

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        partners = draw_partners(batch.labels, self.group_size - 1, self.partner)
        rows = torch.arange(len(partners), device=partners.device).unsqueeze(1)
        positive, negative = torch.cat((rows, partners), dim=1).tensor_split(2, dim=1)  # the first half is the larger
        compared = [logits[part] for logits in (student.logits, teacher.logits) for part in (positive, negative)]
        terms = {"comparison": self.weight * losses.comparative_kd(*compared)}
        if self.label_weight:
            loss = losses.comparative_labels(compared[0], compared[1], batch.labels[positive], batch.labels[negative])
            terms["label_comparison"] = self.label_weight * loss
        return terms
