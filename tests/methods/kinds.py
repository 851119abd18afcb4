"""Representatives of the registry: the first method of each kind, so that a method of a new kind joins by itself."""

from omegaconf import OmegaConf

from ltkd.methods import Method, list_methods

from ..conftest import PROJECT
from .problem import TinyNetwork, build_tiny_method

HOOKS = (
    "forward", "start_epoch", "end_epoch", "prepare", "parameter_groups", "get_extra_state",
)  # fmt: skip
NETWORK_HOOKS = ("extra_teachers", "adapt_student")  # each change of the networks is a kind of its own


def kind_of(name: str) -> tuple:
    """All in which the engine treats methods differently: what they need, own, save and do beside their equation."""
    settings = settings_of(name)
    method = build_tiny_method(name, settings, TinyNetwork((2, 3, 4)), TinyNetwork((6, 7, 8)).eval())
    parameters = {key for key, _ in method.named_parameters()}
    return (
        method.needs,
        bool(parameters),
        bool(method.state_dict().keys() - parameters),  # buffers that are saved
        tuple(hook for hook in HOOKS if getattr(type(method), hook) is not getattr(Method, hook)),
        tuple(getattr(type(method), hook).__qualname__ for hook in NETWORK_HOOKS),
        method.capturable,
        bool(method.needs_teacher_statistics),
    )


def settings_of(name: str) -> dict:
    """The method's settings in its YAML file, without its name."""
    around = {"teacher": {"name": "resnet20"}, "student": {"name": "resnet8"}}
    around["dataset"] = {"name": "digits_lt", "num_classes": 10}
    file = PROJECT / "conf" / "method" / f"{name}.yaml"  # composing the configuration 45 times would take a minute
    settings = OmegaConf.to_container(OmegaConf.create({**around, "method": OmegaConf.load(file)}), resolve=True)[
        "method"
    ]
    settings.pop("name")
    return settings


def representatives() -> list[str]:
    """One method of each kind, in the registry's order."""
    found: dict[tuple, str] = {}
    for name in list_methods():
        found.setdefault(kind_of(name), name)
    return sorted(found.values())
