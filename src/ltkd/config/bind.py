"""Check plain values from YAML against the annotated signature that will receive them, collecting every error."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from ltkd.errors import UserError, unknown_key

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def bind(
    target: Callable, values: Mapping[str, Any], where: str, errors: list[str], *, given: int = 0
) -> dict[str, Any]:
    """The keyword arguments for `target` (a class or function) made from `values`.

    `where` is the configuration key of `values` and starts every message; `given` is the number of leading parameters
    that the program passes itself. Unknown keys, missing keys and values of a wrong type or range are appended to
    `errors`; nothing is raised. A parameter annotated with a dataclass takes a mapping, which is bound in turn.
    """
    if not isinstance(values, Mapping):
        errors.append(f"{where}: should be a mapping of keys to values, got {values!r}")
        return {}
    parameters = list(_parameters(target).values())[given:]
    accepts_anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    prefix = f"{where}." if where else ""
    arguments = {}
    for key, value in values.items():
        if key in named:
            arguments[key] = _checked(target, key, value, f"{prefix}{key}", errors)
        elif accepts_anything:
            arguments[key] = value
        else:
            errors.append(unknown_key(f"{prefix}{key}", named))
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in values:
            errors.append(f"{prefix}{name}: missing")
    return arguments


@lru_cache(maxsize=1024)
def _parameters(target: Callable) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target).parameters


@lru_cache(maxsize=4096)  # to make one takes far longer than to ask it
def _adapter(target: Callable, name: str) -> TypeAdapter | None:
    """Pydantic's check of one parameter. None for a type that cannot come from YAML: the program passes it."""
    try:
        return TypeAdapter(_parameters(target)[name].annotation, config=STRICT)
    except PydanticSchemaGenerationError:
        return None


def _checked(target: Callable, name: str, value: Any, key: str, errors: list[str]) -> Any:
    """`value` if it fits the parameter's annotation; otherwise one message for `key`."""
    annotation = _parameters(target)[name].annotation
    if annotation is inspect.Parameter.empty:
        return value
    if dataclasses.is_dataclass(annotation):
        before = len(errors)
        arguments = bind(annotation, value, key, errors)
        if len(errors) > before:
            return None
        try:
            return annotation(**arguments)
        except UserError as error:  # what the fields must satisfy together
            errors.append(str(error))
            return None
    adapter = _adapter(target, name)
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        # a union reports once per member: one message per key is enough
        messages = dict.fromkeys(_lower_first(problem["msg"].removeprefix("Input ")) for problem in error.errors())
        errors.append(f"{key}: {' or '.join(messages)}, got {value!r}")
        return None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
