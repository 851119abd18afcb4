"""One training step: forward passes, objective, backward pass, update, and the figures of the batch."""

import torch
from torch import Tensor

from ltkd.data import Batch
from ltkd.engine.training import Training
from ltkd.losses import group_mass
from ltkd.models.output import ModelOutput


class Step:
    """The step of one training. It never waits for the device."""

    def __init__(self, training: Training, optimizer: torch.optim.SGD) -> None:
        self.training = training
        self.optimizer = optimizer

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """One update. Returns batch means, on the device: loss/<term>, accuracy, group mass of student and teacher."""
        t, needs = self.training, self.training.method.needs
        if needs.input_gradients:
            batch.images.requires_grad_()
        with t.autocast():
            teacher = self._teacher(batch)
            student = t.model(batch.images, features=needs.stages)
            terms = t.method(student, teacher, batch)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        self.optimizer.step()
        return self._figures(batch, terms, student, teacher)

    def _teacher(self, batch: Batch) -> ModelOutput | None:
        """The teacher's output on the batch; those of further teachers join the batch."""
        t, needs = self.training, self.training.method.needs
        with torch.no_grad():
            batch.further_logits = tuple(model(batch.images).logits for model in t.further_teachers)
        if t.teacher is None:
            return None
        with torch.set_grad_enabled(needs.input_gradients):
            return t.teacher(batch.images, features=needs.stages)

    @torch.no_grad()
    def _figures(
        self, batch: Batch, terms: dict[str, Tensor], student: ModelOutput, teacher: ModelOutput | None
    ) -> dict[str, Tensor]:
        t = self.training
        figures = {f"loss/{name}": term.detach() for name, term in terms.items()}
        figures["accuracy"] = 100 * (student.logits.argmax(1) == batch.labels).float().mean()
        for role, output in (("student", student), ("teacher", teacher)):
            if output is not None:
                mass = group_mass(output.logits.detach(), t.groups, len(t.split.group_names))
                figures[f"group_mass/{role}"] = 100 * mass.mean(0)
        figures |= {name: totals / len(batch.labels) for name, totals in t.method.figures.items()}
        return figures
