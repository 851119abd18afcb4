"""BiKD: how much each image learns from its label and from the teacher is learned itself, on held-out images."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive, PositiveInt
from ltkd.task_losses.base import CrossEntropy

MILESTONES, DECAY = (
    (2 / 3, 5 / 6),
    0.8,
)  # of the weighing network's learning rate: the authors' epochs 80 and 100 of 120


@register("bikd")
class BiKD(Method):
    """mean_b [ w_b0 CE_b + w_b1 T^2 KL_b ], w_b = sigmoid(network(CE of student, CE of teacher on the label)). Adapted.

    It learns from the images of the validation split too: its figures on them, and the epoch and corrections that they
    choose, are of images that it knows, and its table rows say so.
    In each step the student looks one step of plain gradient descent ahead, theta' = theta - learning rate * gradient
    of that objective; the mean cross-entropy of theta' on held_out_batch held-out images, differentiated through the
    step, is the gradient of the weighing network (tanh layers of 64). Adam follows the mean of `accumulation` of them;
    a group that an epoch's end leaves incomplete is dropped. The student then takes its own step with the weights as
    they are now, without gradient to them.
    The equations are the public code's for CIFAR-100. There the held-out images are augmented as those of training and
    taken out before the long tail is drawn; here they are neither cropped nor flipped, and are those of
    dataset.validation_per_class. The look-ahead runs on the student's own forward pass, which has the same numbers.
    """

    reads_labels = True
    paper = "BiKD (public code: Bilevel-balancing-kd), arXiv:2605.17839 (PAKDD 2026)"
    fidelity = "adapted"
    needs = Needs(held_out=True)
    capturable = False  # the weighing network steps once in several, and its Adam counts on the host
    learns_once_a_step = True
    one_process = "its step ahead is along the gradient of the whole batch"

    task_weight: ClassVar[float] = 1.0
    temperature: Positive
    held_out_batch: PositiveInt
    accumulation: PositiveInt
    hidden_layers: PositiveInt
    network_learning_rate: Positive
    network_weight_decay: NonNegative

    def build(self, context: MethodContext) -> None:
        if type(self.task_loss) is not CrossEntropy or self.task_loss.label_smoothing:
            raise UserError("student.task_loss: method bikd weighs the cross-entropy of each image; leave it at ce")
        if context.held_out is None:
            raise UserError(
                "method.name: bikd learns from held-out images, and there is no validation split; set "
                "dataset.validation_per_class (the authors': 10)"
            )
        self.held_out, self.networks, self.rate_of_epoch = context.held_out, context.networks, context.learning_rate
        widths = [2, *[64] * self.hidden_layers, 2]
        layers = [nn.Linear(*ends) for ends in pairwise(widths)]
        self.network = nn.Sequential(layers[0], *(part for layer in layers[1:] for part in (nn.Tanh(), layer)))
        self.network.requires_grad_(False)  # the recipe's optimizer leaves it alone
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=self.network_learning_rate, weight_decay=self.network_weight_decay
        )
        self.register_buffer("order", torch.randperm(len(self.held_out.labels)))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("collected", torch.zeros((), dtype=torch.int64))  # gradients since Adam's latest step
        self.number_collected = 0  # the same, where it is known without a wait for the device
        self.student_rate = 0.0

    def forward(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        terms = losses.hard_soft_terms(student.logits, teacher.logits, batch.labels, temperature=self.temperature)
        on_label = losses.hard_soft_terms(teacher.logits, teacher.logits, batch.labels, temperature=1.0)[:, 0]
        seen = torch.stack((terms[:, 0].detach(), on_label), dim=1)
        if self.training and torch.is_grad_enabled():
            self._learn(terms, seen)
        weights = self.weigh(seen)
        for number, source in enumerate(("label", "teacher")):
            self.record(f"{source}_weight", weights[:, number], batch.labels)
        hard, soft = (weights * terms).mean(0)
        return {"task": hard, "kd": soft}

    def weigh(self, seen: Tensor, parameters: dict[str, Tensor] | None = None) -> Tensor:
        """Weights [B, 2] of label and teacher from the losses `seen` [B, 2], by the network or with its parameters."""
        with torch.autocast(seen.device.type, enabled=False):
            return functional_call(self.network, parameters or {}, (seen,)).sigmoid()

    def look_ahead(self, terms: Tensor, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy on the images after a step on the weighted terms [B, 2]; gradient flows to the weights."""
        student = self.networks.student_parameters
        gradients = torch.autograd.grad(
            (weights * terms).sum(1).mean(), list(student.values()), create_graph=True, materialize_grads=True
        )
        ahead = {
            name: parameter - self.student_rate * gradient
            for (name, parameter), gradient in zip(student.items(), gradients, strict=True)
        }
        return losses.cross_entropy(self.networks.student_at(ahead, images).logits, labels)

    def _learn(self, terms: Tensor, seen: Tensor) -> None:
        parameters = {name: p.detach().requires_grad_() for name, p in self.network.named_parameters()}
        loss = self.look_ahead(terms, self.weigh(seen, parameters), *self._next_images())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            share = gradient / self.accumulation
            parameter.grad = share if parameter.grad is None else parameter.grad + share
        self.collected += 1
        self.number_collected += 1
        if self.number_collected == self.accumulation:
            self.optimizer.step()
            self._drop_gradients()

    def _next_images(self) -> tuple[Tensor, Tensor]:
        number = min(self.held_out_batch, len(self.order))
        rows = self.order[(self.position + torch.arange(number, device=self.order.device)) % len(self.order)]
        self.position += number
        return self.held_out.whole(rows), self.held_out.labels[rows]

    def _drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.collected.zero_()
        self.number_collected = 0

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.student_rate = self.rate_of_epoch(epoch)
        passed = sum(epoch > round(milestone * self.epochs) for milestone in MILESTONES)
        for group in self.optimizer.param_groups:
            group["lr"] = self.network_learning_rate * DECAY**passed

    def end_epoch(self, model: nn.Module) -> None:
        super().end_epoch(model)
        self._drop_gradients()
        self.order.copy_(torch.randperm(len(self.order)))
        self.position.zero_()

    def get_extra_state(self) -> dict[str, Any]:
        gradients = [parameter.grad for parameter in self.network.parameters()]
        return {"optimizer": self.optimizer.state_dict(), "gradients": gradients}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.number_collected = int(self.collected)  # buffers are loaded before
        for parameter, gradient in zip(self.network.parameters(), state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
