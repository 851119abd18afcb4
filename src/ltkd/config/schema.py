"""The typed configuration: one dataclass per section, one attribute per key."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from ltkd.data import DatasetConfig
from ltkd.methods import method_class

Seed = Annotated[int, Ge(0), Lt(2**32)]
Tau = Annotated[float, Ge(0)] | Literal["auto"]  # of a post-hoc correction
Choice = str | dict[str, Any]  # "name" or {name: ..., other arguments}


@dataclass(frozen=True)
class Recipe:
    """Optimisation of one network. Epochs count from 1; a factor holds from the epoch after its milestone on."""

    name: str
    epochs: Annotated[int, Ge(0)]
    batch_size: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    nesterov: bool
    weight_decay: Annotated[float, Ge(0)]
    warmup_epochs: Annotated[int, Ge(0)]
    schedule: Literal["step", "cosine", "constant"]
    milestones: list[Annotated[float, Gt(0), Lt(1)]]
    decay_factors: list[Annotated[float, Gt(0)]]
    sampling: Choice = "instance"
    augmentation: str | list[Choice] = "crop_flip"
    optimizer: Choice = "sgd"
    sam: Annotated[float, Ge(0)] = 0.0
    average: Choice = "none"
    accumulation: Annotated[int, Ge(1)] = 1


@dataclass(frozen=True)
class Network:
    """A student, and what a teacher has in common with it."""

    name: str
    pretrained: bool
    arguments: dict[str, Any]
    task_loss: Choice
    retraining: Choice | None
    recipe: dict[str, Any]
    classifier: Choice = field(default="linear", kw_only=True)


@dataclass(frozen=True)
class Student(Network):
    start: Literal["random", "teacher"] = "random"  # the weights that training begins with


@dataclass(frozen=True)
class Swag:
    """A sample of the SWAG posterior around a trained teacher; runs/swag.py says what the settings mean."""

    epochs: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    rank: Annotated[int, Ge(2)]
    sample: Annotated[int, Ge(0)] | None  # None: the training that the posterior is collected from


@dataclass(frozen=True)
class Teacher(Network):
    seed: Seed
    checkpoint: str | None
    swag: Swag | None = None  # set by methods alone
    checkpoint_key: str | None = None  # the set of weights in a file that has several
    class_names: list[str] | None = None  # of the file's outputs, in their order; None: in the data set's order
    mean: list[float] | None = None  # of the images that its weights expect; None: as the data set's
    std: list[Annotated[float, Gt(0)]] | None = None
    image_size: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True)
class Precision:
    autocast: Literal["float32", "bfloat16"]
    tf32: bool
    sync_batch_norm: bool = False


@dataclass(frozen=True)
class Run:
    evaluate_every: Annotated[int, Ge(1)]
    threads: Annotated[int, Ge(1)] | Literal["auto"]
    progress: Literal["auto", "bar", "lines", "none"]
    step: Literal["auto", "eager", "graph", "compile"]


@dataclass(frozen=True)
class Cache:
    mode: Literal["auto", "fill", "lazy", "off"]
    max_gigabytes: Annotated[float, Gt(0)]
    storage: Literal["float32", "float16"]


@dataclass(frozen=True)
class EvaluationSettings:
    """Measurements of the finished network beside its accuracy."""

    logit_adjusted: Tau | None
    tau_normalized: Tau | None
    robustness: bool | Literal["auto"]
    robustness_images: Annotated[int, Ge(1)] | None


@dataclass(frozen=True)
class Wandb:
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    entity: str | None
    tags: list[str]


@dataclass(frozen=True)
class Config:
    """Everything that a run needs to know; one attribute per top-level key of conf/config.yaml."""

    study: str
    seed: Seed
    device: str
    output_root: str
    data_root: str
    precision: Precision
    run: Run
    cache: Cache
    evaluation: EvaluationSettings
    wandb: Wandb
    dataset: DatasetConfig
    teacher: Teacher
    student: Student
    method: dict[str, Any]
    recipe: Recipe

    @property
    def method_name(self) -> str:
        return self.method["name"]

    @property
    def method_arguments(self) -> dict[str, Any]:
        return {key: value for key, value in self.method.items() if key != "name"}

    @property
    def needs_teacher(self) -> bool:
        return method_class(self.method_name).needs.teacher

    @property
    def reads_groups(self) -> bool:
        """True if the student's method reads the data set's groups; for all else they only name what is reported."""
        return method_class(self.method_name).reads_groups(self.method_arguments)

    @property
    def reads_stored_logits(self) -> bool:
        """True if logits of a teacher may come from a cache, rounded as cache.storage says."""
        needs = method_class(self.method_name).needs
        return needs.teacher and (needs.teacher_logits_only or bool(self.extra_teachers))

    @property
    def extra_teachers(self) -> list[Teacher]:
        """The teachers that the method wants beside the main one."""
        method = method_class(self.method_name)
        if not method.needs.teacher:
            return []
        teachers = []
        teacher, student = dataclasses.asdict(self.teacher), dataclasses.asdict(self.student)
        for difference in method.extra_teachers(teacher, student, self.method_arguments):
            if "swag" in difference:
                difference = difference | {"swag": Swag(**difference["swag"])}
            teachers.append(dataclasses.replace(self.teacher, **difference))
        return teachers

    def recipe_of(self, network: Network) -> Recipe:
        """The recipe with what the network's own settings override."""
        return dataclasses.replace(self.recipe, **network.recipe)
