"""Settings that a class declares as annotated attributes: methods, task losses and samplers are such classes."""

import inspect
from typing import Any, ClassVar, get_origin


class Settings:
    """A class whose annotated attributes are its settings: the keys of its YAML file, with type, range and default.

        class KD(Method):
            weight: NonNegative              # must be given
            temperature: Positive = 4.0      # may be given

    It reads as a dataclass of keywords only. KD(context, task_loss, weight=1.0) has self.weight and self.temperature,
    and its signature lists both, so that `config.bind` checks a configuration against their annotations. Settings of
    the base classes are inherited. A subclass that annotates one again changes its type or its default, and with
    `temperature: ClassVar[float] = 4.0` it fixes the value, which is then no setting any more. Attributes that are no
    settings are not annotated, or are ClassVar.
    """

    __signature__: ClassVar[inspect.Signature]
    settings: ClassVar[dict[str, inspect.Parameter]] = {}  # by name, those of the base classes first

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.settings = {}
        for base in reversed([base for base in cls.__mro__ if issubclass(base, Settings)]):
            for name, annotation in inspect.get_annotations(base, eval_str=True).items():
                if ClassVar in (annotation, get_origin(annotation)):
                    cls.settings.pop(name, None)
                else:
                    default = vars(base).get(name, inspect.Parameter.empty)
                    cls.settings[name] = inspect.Parameter(
                        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                    )
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # what the program passes itself
        parameters = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        cls.__signature__ = inspect.Signature([*parameters, *cls.settings.values()])

    def __init__(self, **values: Any) -> None:
        """Sets every setting to its value or default. TypeError where one is missing or unknown."""
        super().__init__()
        bound = inspect.Signature(list(self.settings.values())).bind(**values)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)
