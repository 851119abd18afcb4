"""Annotated numbers for the settings of methods and losses: the ranges that a configuration is checked against."""

from typing import Annotated

from annotated_types import Ge, Gt, Le

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
PositiveInt = Annotated[int, Ge(1)]
