"""Refuses a split that lacks images of a class, for losses and methods that divide by the number of images."""

from torch import Tensor

from ltkd.errors import UserError


def check_every_class(who: str, class_counts: Tensor, *, remedy: str) -> None:
    """UserError that names the classes without a training image, if there are any.

    class_counts: [C]; who: begins the message, "KEY: NAME"; remedy: ends it, the other choices.
    """
    empty = (class_counts == 0).nonzero().flatten().tolist()
    if empty:
        listed = ", ".join(map(str, empty[:10])) + (", ..." if len(empty) > 10 else "")
        raise UserError(
            f"{who} needs a training image of every class; none of class {listed}. Choose {remedy} or another split"
        )
