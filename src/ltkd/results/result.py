"""The shape of result.json, and of what it says of a teacher. In memory they are the mappings that the file holds."""

from typing import Any, Literal, NotRequired, TypedDict


class Evaluated(TypedDict):
    """A network on held-out images, all in percent; None for a group or a class without images (never 0)."""

    all: float
    mean_per_class: NotRequired[float]  # which older results lack
    per_group: dict[str, float | None]
    per_class: list[float | None]
    group_confusion: list[list[float] | None]  # [i][j]: share of the images of group i taken for a class of group j
    group_mass: dict[str, float | None]  # mean probability that the network gives to a group
    expected_calibration_error: float


class EpochRecord(Evaluated):
    """The network after an epoch, on the test part."""

    epoch: int
    validation: NotRequired[Evaluated]  # where there is a validation split


class Accuracy(TypedDict):
    last: EpochRecord  # the headline
    best: EpochRecord  # best epoch ON THE TEST PART: only for comparison with papers that report it
    selected: EpochRecord | None  # best epoch on the validation split, where there is one


class Corrected(TypedDict):
    """The finished network, corrected for the class counts by a function with the parameter tau."""

    tau: float
    chosen_by: Literal["setting", "validation", "default"]
    test: Evaluated
    validation: NotRequired[Evaluated]


class PostHoc(TypedDict):
    """None where it was not asked for or cannot be had."""

    logit_adjusted: Corrected | None
    tau_normalized: Corrected | None


class Attacked(TypedDict):
    all: float
    per_group: dict[str, float | None]


class UnderAttack(TypedDict):
    clean: Attacked
    fgsm: Attacked
    pgd: Attacked


class Robustness(TypedDict):
    images: int
    radius: float  # of pixel values in 0 .. 1, as is step
    step: float
    steps: int
    student: UnderAttack
    teacher: UnderAttack | None


class TeacherResult(TypedDict):
    """A student's result says this of each of its teachers; post_hoc and weights_sha256 are None in older ones."""

    hash: str
    cell: str
    seed: int
    directory: str
    accuracy: Accuracy
    parameters: int
    evaluate_every: int
    post_hoc: PostHoc | None
    weights_sha256: str | None


class Session(TypedDict):
    """The circumstances of a training that may change its last digits; None where they were not noted."""

    device: str | None
    threads: int | None
    torch: str | None
    git: dict[str, Any] | None
    ranks: NotRequired[int]  # processes that trained together, where there were several
    side_by_side: NotRequired[int]  # trainings of one process that shared its device, so that each took longer


class Findings(TypedDict):
    """The findings about a network beside its accuracy."""

    sessions: NotRequired[list[Session]]  # of the training, each once; older results lack them
    further_teacher_results: list[TeacherResult]
    before_retraining: NotRequired[Accuracy]  # after the first of two stages
    post_hoc: PostHoc
    learned_from_validation: NotRequired[Literal[True]]  # the method trained on the validation split's images
    robustness: NotRequired[Robustness | None]  # of a student


class Result(Findings):
    """One trained network."""

    schema_version: int
    role: Literal["teacher", "student"]
    study: str
    dataset: str
    teacher: str | None
    student: str | None  # None for a teacher
    method: str
    label: str
    hash: str
    cell: str  # hash that all runs share which differ in their seeds alone
    seed: int
    split_seed: int
    accuracy: Accuracy
    evened_out_by: NotRequired[str | None]  # setting of the training that makes a correction the second one
    group_names: list[str]
    class_names: NotRequired[list[str]]  # which older results lack
    class_counts: list[int]
    groups: list[int]  # [C] position in group_names
    group_policy: NotRequired[str | dict[str, Any]]  # dataset.groups, of which all figures per group are
    reads_groups: NotRequired[bool]  # True where the training depends on it; older results lack these and the counts
    test_counts: NotRequired[list[int]]  # [C] images of the test part
    validation_counts: NotRequired[list[int] | None]
    split_sha256: str
    teacher_result: TeacherResult | None
    directory: str
    parameters: int
    multiply_adds: int
    wall_seconds: float  # of the process that finished; train_seconds is of all, with interruptions
    train_seconds: float
    images_per_second: float | None
    device: str
    threads: int
    versions: dict[str, str]
    git: dict[str, Any] | None
    finished: str  # ISO 8601, UTC
    weights_sha256: str
    identity: dict[str, Any]
    evaluate_every: int
