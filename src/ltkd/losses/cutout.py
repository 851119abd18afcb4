"""The box that Cutout sets to zero."""

from collections.abc import Sequence


def cutout_box(centre: Sequence[int], *, size: int, length: int) -> list[int]:
    """[row0, row1, column0, column1] of a square of side `length` round the pixel `centre`, clipped to 0 .. size.

    A centre near the border leaves less than the whole square, as in the field's code: DeVries, Taylor: Improved
    Regularization of Convolutional Neural Networks with Cutout, arXiv:1708.04552.
    """
    half = length // 2
    return [edge for middle in centre for edge in (max(int(middle) - half, 0), min(int(middle) + half, size))]
