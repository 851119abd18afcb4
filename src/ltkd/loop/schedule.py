"""The learning rate of an epoch."""

import math

from ltkd.config.schema import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate of `epoch` (counted from 1), constant within it: linear warm-up, then the recipe's schedule.

    step: a factor holds from the epoch after its milestone on, so that milestone 0.625 of 240 epochs changes epoch 151.
    cosine: from the base rate down towards 0, over the epochs after the warm-up.
    """
    if epoch <= recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    if recipe.schedule == "step":
        passed = sum(epoch > round(milestone * recipe.epochs) for milestone in recipe.milestones)
        return recipe.learning_rate * (recipe.decay_factors[passed - 1] if passed else 1.0)
    if recipe.schedule == "cosine":
        progress = (epoch - 1 - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.learning_rate
