"""The check that methods make which divide by the number of training images of a class."""

from ltkd.errors import UserError
from ltkd.methods.base import MethodContext


def check_every_class(method: str, context: MethodContext) -> None:
    """UserError that names the classes without a training image, if there are any."""
    empty = (context.class_counts == 0).nonzero().flatten().tolist()
    if empty:
        listed = ", ".join(map(str, empty[:10])) + (", ..." if len(empty) > 10 else "")
        raise UserError(
            f"method.name: {method} needs a training image of every class; none of class {listed}. "
            "Choose another method or another split"
        )
