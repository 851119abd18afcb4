"""Trains the classifier alone again, the second stage of a two-stage training, in a folder of its own.

The features stay in eval mode. (The code of arXiv:1910.09217 leaves its frozen network in training mode, so that its
batch normalisation drifts towards the second stage's sampling; here the features are the first stage's.)
"""

import copy
import dataclasses

import torch
from torch import Tensor, nn

from ltkd.config.retraining import LearnableWeightScaling, build_retraining
from ltkd.config.schema import Network
from ltkd.data import build_sampler
from ltkd.errors import UserError
from ltkd.loop.tracking import Tracker
from ltkd.loop.trainer import FitResult, Trainer
from ltkd.loop.training import Training
from ltkd.losses import learnable_weight_scaling
from ltkd.methods import Method
from ltkd.models.classifier import linear_classifier, set_classifier
from ltkd.models.weights import load_weights, save_weights
from ltkd.results.files import RunFiles


def check_retraining(network: Network, model: nn.Module) -> None:
    """Raise a UserError unless the classifier of `model` can be retrained as `network` wants it."""
    if network.retraining is None:
        return
    if isinstance(build_retraining(network.retraining), LearnableWeightScaling):
        linear_classifier(model, f"{network.name}: retraining=lws")
    elif getattr(model, "classifier", None) is None:
        raise UserError(f"{network.name}: retraining=crt needs a network with one layer that makes the logits")


def retrain(network: Network, first: Training, method: Method, run_files: RunFiles, tracker: Tracker) -> FitResult:
    """Train the classifier of `first.model` once more, or resume that; `first` is the training that is finished.

    method: of this stage, whose files are run_files.retraining. The network has the same parameters afterwards, with
    other values: its file of weights fits the same network, and so does that of the epoch which the validation split
    selected, now one of this stage.
    """
    files = run_files.retraining
    settings, model = build_retraining(network.retraining), first.model
    recipe = settings.recipe(first.recipe)
    scaling = isinstance(settings, LearnableWeightScaling)
    torch.manual_seed(first.seed)
    if scaling:
        set_classifier(model, ScaledClassifier(linear_classifier(model, "retraining=lws")))
    else:
        fresh = copy.deepcopy(model.classifier).cpu()  # on the CPU: the same start on every device
        fresh.reset_parameters()
        model.classifier.load_state_dict(fresh.state_dict())
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    second = dataclasses.replace(
        first, label=f"{first.label}, classifier", method=method, teacher=None, extra_teachers=[],
        teacher_logits=None, extra_logits=[], recipe=recipe,
        sampler=build_sampler(recipe.sampling, first.sampler.labels), frozen_features=True,
    )  # fmt: skip
    fitted = Trainer(second, files, tracker.stage(files)).fit()
    if fitted.accuracy["selected"] is not None and first.ranks.is_first:
        selected = copy.deepcopy(model)
        epoch = load_weights(selected, files.selected)
        _fold(selected)
        save_weights(selected, run_files.selected, epoch)
    _fold(model)
    model.requires_grad_(True)
    return fitted


def _fold(model: nn.Module) -> None:
    if isinstance(model.classifier, ScaledClassifier):
        set_classifier(model, model.classifier.folded())


class ScaledClassifier(nn.Module):
    """A linear classifier that is fixed but for a trained factor s per class, (W x + b)_k * s_k."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().clone())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
        self.scale = nn.Parameter(torch.ones_like(self.weight[:, 0]))

    def forward(self, x: Tensor) -> Tensor:
        return learnable_weight_scaling(nn.functional.linear(x, self.weight, self.bias), self.scale)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The linear classifier with the factors in its weights and biases."""
        classes, features = self.weight.shape
        linear = nn.Linear(features, classes, bias=self.bias is not None).to(self.weight)
        linear.weight.copy_(self.weight * self.scale[:, None])
        if self.bias is not None:
            linear.bias.copy_(self.bias * self.scale)
        return linear
