"""A check of given weights before anything is trained with them: they know the training images, in the data's order."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltkd.errors import UserError

logger = logging.getLogger(__name__)

MOSTLY = 0.6  # share of the images of a class that is taken for another
EXPLAINED = 2.0  # an order of classes that explains at least this many times the accuracy is no coincidence


def check_predictions(logits: Tensor, labels: Tensor, class_names: Sequence[str], what: str) -> None:
    """UserError, beginning with `what`, for logits [N, C] that are no better than chance, or of another class order.

    The accuracy is the mean over the classes, of which one guess for all images has 1 / C whatever the imbalance. At
    chance is what lies within two standard errors above 1 / C. Another order is suspected where a permutation of the
    columns, the best of all, has at least twice the accuracy and is well above chance itself. A few classes that are
    taken for one another are a warning.
    """
    from scipy.optimize import linear_sum_assignment  # here: a slow import that few runs need

    num_classes = logits.shape[1]
    pairs = labels.cpu() * num_classes + logits.argmax(dim=1).cpu()
    confusion = torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).double().numpy()
    images = np.maximum(confusion.sum(axis=1), 1)
    rates = confusion / images[:, None]
    accuracy, chance = rates.diagonal().mean(), 1 / num_classes
    at_chance = chance + 2 * np.sqrt((chance * (1 - chance) / images).sum()) / num_classes
    _, column = linear_sum_assignment(-rates)
    best = rates[np.arange(num_classes), column].mean()
    report = f"{what}: is right on {100 * accuracy:.1f} % of the training images (mean over the classes)"
    if best >= max(EXPLAINED * accuracy, 2 * at_chance):
        first = int(np.flatnonzero(column != np.arange(num_classes))[0])
        raise UserError(
            f"{report}, but on {100 * best:.1f} % with its outputs in another order: it was trained with another order "
            f"of classes (class {first}, {class_names[first]!r}, is its output {column[first]}); teacher.class_names "
            "says the names in its order"
        )
    if accuracy <= at_chance:
        raise UserError(
            f"{report}, no more than chance ({100 * chance:.1f} %): it knows other classes, other images, or images of "
            "another normalisation (dataset.mean, dataset.std; teacher.mean, teacher.std, teacher.image_size)"
        )
    elsewhere = {c for c in range(num_classes) if rates[c, column[c]] > MOSTLY and rates[c, c] < 1 - MOSTLY}
    exchanged = sorted(c for c in elsewhere if column[c] in elsewhere)  # else it is a bias towards the other class
    if exchanged:
        pairs = ", ".join(f"{class_names[c]!r} for {class_names[column[c]]!r}" for c in exchanged[:3])
        logger.warning(
            "%s, and takes classes for one another (%s); teacher.class_names says an order of its outputs",
            report,
            pairs,
        )
