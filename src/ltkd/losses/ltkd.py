"""The LTKD loss: the KL divergence split at class groups, its two parts rebalanced.

With p = softmax(z / T) of teacher (pT) or student (pS), its mass p_G in group G, and q_G = p inside G divided by p_G:

    KL(pT || pS) = KL(pT_groups || pS_groups) + sum_G pT_G * KL(qT_G || qS_G)

A teacher trained on long-tailed data has too much mass in the head groups: it passes that on through the first part,
and the second hardly teaches the tail's classes. LTKD rescales the teacher's masses in the first and weighs all
groups by 1 in the second. Kim: Distilling Balanced Knowledge from a Biased Teacher, arXiv:2506.18496 (CVPR 2026).
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ltkd.errors import unknown_name
from ltkd.losses.precision import full_precision


class ClassGroups(NamedTuple):
    """The classes of each group, laid out for sums over groups: G non-empty groups of at most M classes.

    Made once from the group ids, so that a training step neither searches nor waits for the device.
    A step handles G * M values per image: about C, unless many small groups stand beside a large one.
    """

    members: Tensor  # [G, M] int64, the classes of each group; fillers behind the last one
    padding: Tensor  # [G, M] float, 0 at a class and -inf at a filler: added to logits it takes the fillers out
    ids: Tensor  # [G] int64, the id of each group
    num_ids: int  # largest id + 1; ids between may belong to no class
    num_classes: int

    @classmethod
    def of(cls, groups: Tensor) -> "ClassGroups":
        """The layout for group ids [C] (non-negative integers), on their device. ValueError for anything else."""
        if groups.ndim != 1 or groups.is_floating_point() or groups.numel() == 0 or int(groups.min()) < 0:
            raise ValueError(f"groups: needs a non-negative integer for each class, got {groups}")
        host_groups = groups.detach().cpu()
        ids = host_groups.unique()
        rows = [(host_groups == group).nonzero().flatten() for group in ids]
        members = pad_sequence(rows, batch_first=True, padding_value=-1)
        filler = members < 0
        padding = torch.zeros(members.shape).masked_fill(filler, -torch.inf)
        # Fillers point all over the classes: gradients of 0 that meet in one class would queue up there on a GPU.
        members = torch.where(filler, torch.arange(members.numel()).view_as(members) % len(groups), members)
        tensors = (tensor.to(groups.device) for tensor in (members, padding, ids.long()))
        return cls(*tensors, num_ids=int(ids[-1]) + 1, num_classes=len(groups))


@full_precision
def group_log_mass(logits: Tensor, groups: Tensor | ClassGroups, *, temperature: float = 1.0) -> Tensor:
    """Log of each non-empty group's mass in softmax(logits / T): [B, C] -> [B, G], in ascending order of the ids."""
    grouped = _GroupedLogits(logits, _layout(groups, logits), temperature)
    return F.log_softmax(grouped.log_sums, dim=1)


def group_mass(logits: Tensor, groups: Tensor | ClassGroups, num_groups: int, *, temperature: float = 1.0) -> Tensor:
    """Mass of the group ids 0 .. num_groups - 1 in softmax(logits / T): [B, C] -> [B, num_groups]; 0 where no class is.

    Its mean at T = 1 over a class-balanced test set shows a network's bias; unbiased is each group's share of classes.
    """
    layout = _layout(groups, logits)
    if num_groups < layout.num_ids:
        raise ValueError(
            f"num_groups: should be at least {layout.num_ids} (the largest group id + 1), got {num_groups}"
        )
    mass = group_log_mass(logits, layout, temperature=temperature).exp()
    if len(layout.ids) == num_groups:
        return mass
    return mass.new_zeros(len(mass), num_groups).index_copy(1, layout.ids, mass)


@full_precision
def ltkd_terms(
    student_logits: Tensor,
    teacher_logits: Tensor,
    groups: Tensor | ClassGroups,
    *,
    temperature: float,
    rebalancing: Literal["batch", "none"] | Tensor = "batch",
    within_weights: Literal["uniform", "teacher"] = "uniform",
) -> tuple[Tensor, Tensor]:
    """The two terms of LTKD (arXiv:2506.18496), each times T^2 and unweighted: (cross, within).

    cross = mean_b KL(t(b) || pS_groups(b)), where t(b) is pT_groups(b) divided by a mean teacher mass s_G of each
    group and renormalised; s is the mean over this batch ("batch", the paper's), 1 ("none"), or the given tensor.
    within = mean_b sum_G w_G KL(qT_G(b) || qS_G(b)) with w_G = 1 ("uniform", the paper's) or pT_G(b) ("teacher").
    With rebalancing "none" and within weights "teacher" their sum is `kd`.

    Two groups (step imbalance) are treated as three are. With one group (balanced data) cross is 0, there being nothing
    to rebalance, and within is T^2 KL(pT || pS): KD. With a group for each class within is 0.

    Shapes: logits [B, C]; groups [C], group id of each class (ids without classes are skipped), or its ClassGroups,
    which saves looking them up again at each call; a tensor `rebalancing` [largest id + 1], masses by group id.
    Gradient flows to the student only. "batch" depends on who shares the batch: it is the statistic of the logits
    passed, of one process.
    """
    layout = _layout(groups, student_logits)
    student = _GroupedLogits(student_logits, layout, temperature)
    with torch.no_grad():
        teacher = _GroupedLogits(teacher_logits, layout, temperature)
        log_mass = F.log_softmax(teacher.log_sums, dim=1)
        target = F.log_softmax(log_mass - _log_mean_mass(rebalancing, log_mass, layout), dim=1)
        probability = (teacher.log_probability + layout.padding).exp()  # 0 at the fillers
        if within_weights == "teacher":
            probability = probability * log_mass.exp().unsqueeze(2)
        elif within_weights != "uniform":
            raise unknown_name("within_weights", within_weights, ("uniform", "teacher"))

    cross = F.kl_div(F.log_softmax(student.log_sums, dim=1), target, reduction="batchmean", log_target=True)
    within = (probability * (teacher.log_probability - student.log_probability)).sum(dim=(1, 2)).mean()
    return temperature**2 * cross, temperature**2 * within


class _GroupedLogits:
    """Logits [B, C] at a temperature, seen by groups."""

    def __init__(self, logits: Tensor, layout: ClassGroups, temperature: float) -> None:
        rows = (logits / temperature).index_select(1, layout.members.flatten())
        by_group = rows.view(len(logits), *layout.members.shape)
        # [B, G] log of the sum of the group's exponentials
        self.log_sums = (by_group + layout.padding).logsumexp(dim=2)
        # [B, G, M] within the group; finite but without meaning at the fillers
        self.log_probability = by_group - self.log_sums.unsqueeze(2)


def _log_mean_mass(rebalancing: str | Tensor, log_mass: Tensor, layout: ClassGroups) -> Tensor:
    """Log of the masses [G] that the teacher's are divided by, up to a common constant, which cancels."""
    if isinstance(rebalancing, Tensor):
        mean_mass = rebalancing.index_select(0, layout.ids)
        # A given mass may have underflowed to 0, whose log is not finite; the batch's own below cannot, it stays a log.
        return mean_mass.clamp_min(torch.finfo(mean_mass.dtype).tiny).log()
    if rebalancing == "batch":
        return log_mass.logsumexp(dim=0)
    if rebalancing == "none":
        return torch.zeros_like(log_mass[0])
    raise unknown_name("rebalancing", rebalancing, ("batch", "none"))


def _layout(groups: Tensor | ClassGroups, logits: Tensor) -> ClassGroups:
    layout = groups if isinstance(groups, ClassGroups) else ClassGroups.of(groups.to(logits.device))
    if layout.num_classes != logits.shape[1]:
        raise ValueError(f"groups: describe {layout.num_classes} classes, but the logits have {logits.shape[1]}")
    return layout
