"""Networks by name; every one returns a ModelOutput. timm and torchvision are imported only when one of their networks
is asked for.

Every network has `classifier`: in our own zoo the final nn.Linear, in adapted networks the layer that makes the
logits (or None where there is no single one). Wherever it is an nn.Linear, `classifier(output.embedding)` equals
`output.logits`. The LDAM loss puts a CosineClassifier in its place (classifier.py).

A network of our own also has `preact_norms`, as long as `preact_stages`: the nn.BatchNorm2d whose output is each
pre-activation map (in residual networks the last one before the shortcut is added to it), or None where there is none
over all of its channels. Its last stage is always the map whose global average is the embedding.
"""

from ltkd.models.complexity import count_multiply_adds, count_parameters
from ltkd.models.mode import evaluating
from ltkd.models.output import ModelOutput
from ltkd.models.plausibility import check_predictions
from ltkd.models.registry import build_model, list_models, model_factory
from ltkd.models.starting_weights import starting_weights
from ltkd.models.weights import load_weights, save_weights

__all__ = [
    "ModelOutput",
    "build_model",
    "check_predictions",
    "count_multiply_adds",
    "count_parameters",
    "evaluating",
    "list_models",
    "load_weights",
    "model_factory",
    "save_weights",
    "starting_weights",
]
