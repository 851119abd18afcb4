"""Weights of label and teacher for each image, learnt by looking one step ahead at held-out images.

Here the student is linear, z = x W^T, which shows the equations in full; the method takes the same step with a network.
BiKD, arXiv:2605.17839 (PAKDD 2026).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.logit import kd_per_image
from ltkd.losses.precision import full_precision


@full_precision
def weighted_hard_soft(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, weights: Tensor, *, temperature: float
) -> Tensor:
    """mean_b w_b0 * CE(s, y) + w_b1 * T^2 * KL(softmax(t / T) || softmax(s / T)) for weights [B, 2]; (1, 1) is CE + KD.

    Logits [B, C], target [B] int64. Gradient flows to the student and to the weights.
    """
    return (weights * hard_soft_terms(student_logits, teacher_logits, target, temperature=temperature)).sum(1).mean()


@full_precision
def hard_soft_terms(student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """The two unweighted terms of each image, CE and T^2 * KL: [B, 2]."""
    hard = F.cross_entropy(student_logits, target, reduction="none")
    return torch.stack((hard, kd_per_image(student_logits, teacher_logits, temperature=temperature)), dim=1)


@full_precision
def lookahead_loss(
    images: Tensor,
    target: Tensor,
    teacher_logits: Tensor,
    student_weight: Tensor,
    weights: Tensor | None = None,
    *,
    validation_images: Tensor,
    validation_target: Tensor,
    net_weight1: Tensor | None = None,
    net_bias1: Tensor | None = None,
    net_weight2: Tensor | None = None,
    net_bias2: Tensor | None = None,
    lr: float,
    temperature: float,
) -> Tensor:
    """Mean CE on held-out images after one step of plain gradient descent on `weighted_hard_soft`.

        W' = W - lr * dL/dW, L = mean_b [w_b0 CE + w_b1 T^2 KL]; value = mean CE(x_val W'^T, y_val)

    images [B, D], student_weight [C, D], validation_images [V, D]. weights [B, 2] are given, or come from a network of
    one hidden layer on the detached losses of student and teacher on the label:
    w = sigmoid(W2 tanh(W1 [CE_s, CE_t] + b1) + b2). Gradient flows through the update to the weights or that network.
    """
    if not student_weight.requires_grad:
        student_weight = student_weight.detach().requires_grad_()
    with torch.enable_grad():
        student_logits = images @ student_weight.T
        if weights is None:
            label_losses = [F.cross_entropy(z, target, reduction="none") for z in (student_logits, teacher_logits)]
            hidden = F.linear(torch.stack(label_losses, dim=1).detach(), net_weight1, net_bias1).tanh()
            weights = F.linear(hidden, net_weight2, net_bias2).sigmoid()
        loss = weighted_hard_soft(student_logits, teacher_logits, target, weights, temperature=temperature)
        (gradient,) = torch.autograd.grad(loss, student_weight, create_graph=True)
    return F.cross_entropy(validation_images @ (student_weight - lr * gradient).T, validation_target)


@torch.no_grad()
@full_precision
def lookahead_gradient(
    images: Tensor,
    target: Tensor,
    teacher_logits: Tensor,
    student_weight: Tensor,
    weights: Tensor,
    *,
    validation_images: Tensor,
    validation_target: Tensor,
    lr: float,
    temperature: float,
) -> Tensor:
    """Gradient of `lookahead_loss` to the weights, [B, 2], without a second-order graph.

    dL_val/dw_bk = -lr / B * <grad L_val(W'), grad l_bk(W)>, with l_b0 = CE_b and l_b1 = T^2 KL_b: the objective is
    linear in the weights, so one Jacobian-vector product of all images' terms gives every entry.
    """

    def terms(weight: Tensor) -> Tensor:
        return hard_soft_terms(images @ weight.T, teacher_logits, target, temperature=temperature)

    def held_out(weight: Tensor) -> Tensor:
        return F.cross_entropy(validation_images @ weight.T, validation_target)

    step = torch.func.grad(lambda weight: (weights * terms(weight)).sum(1).mean())(student_weight)
    direction = torch.func.grad(held_out)(student_weight - lr * step)
    _, change = torch.func.jvp(terms, (student_weight,), (direction,))
    return -lr / len(images) * change
