"""The settings of a second stage of training: the classifier once more, on features that stay as they are.

Kang et al.: Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217. Epochs, learning
rate and sampling are theirs for ImageNet-LT, with batches of 512; where the recipe's batches are of another size, the
learning rate is scaled with it. runs/retrain.py carries it out.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from ltkd.choices import look_up, name_and_settings
from ltkd.config.schema import Recipe

LEARNING_RATE_AT_512 = 0.2


@dataclass(frozen=True)
class ClassifierRetraining:
    """cRT: the classifier starts anew. SGD with momentum .9 and a cosine to 0; cross-entropy on the labels alone.

    batch_size null: the recipe's. learning_rate null: .2 per 512 images of a batch.
    """

    epochs: Annotated[int, Ge(1)] = 10
    batch_size: Annotated[int, Ge(2)] | None = None
    learning_rate: Annotated[float, Gt(0)] | None = None
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    sampling: Literal["class_balanced", "square_root", "instance"] = "class_balanced"

    def recipe(self, first: Recipe) -> Recipe:
        """Derives the recipe of the second stage from that of the first."""
        batch_size = self.batch_size or first.batch_size
        return dataclasses.replace(
            first, epochs=self.epochs, batch_size=batch_size, weight_decay=self.weight_decay, sampling=self.sampling,
            learning_rate=self.learning_rate or LEARNING_RATE_AT_512 * batch_size / 512,
            momentum=0.9, nesterov=False, warmup_epochs=0, schedule="cosine", milestones=[], decay_factors=[],
            optimizer="sgd", sam=0.0, average="none", accumulation=1,
        )  # fmt: skip


@dataclass(frozen=True)
class LearnableWeightScaling(ClassifierRetraining):
    """LWS: the classifier stays, too, but for one factor per class on its logits, which starts at 1."""

    epochs: Annotated[int, Ge(1)] = 5


RETRAININGS: dict[str, type[ClassifierRetraining]] = {"crt": ClassifierRetraining, "lws": LearnableWeightScaling}


def retraining_class(name: str) -> type[ClassifierRetraining]:
    """The settings of that name. UserError if unknown."""
    return look_up("retraining", name, RETRAININGS)


def build_retraining(choice: str | dict[str, Any]) -> ClassifierRetraining:
    """The settings of a second stage, from a name or {name: ..., its settings}."""
    name, settings = name_and_settings(choice)
    return retraining_class(name)(**settings)
