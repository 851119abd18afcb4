"""Successive halving under a budget of time: all candidates a short training, the best of them a longer one.

Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization, arXiv:1502.07943.
"""

from dataclasses import dataclass

SHARES = (0.25, 0.5, 1.0)  # of the last round's epochs
LEAST_EPOCHS = 4  # of the last round: the first has one then
MOST_SEEDS = 5
LEAST_SEEDS = 2  # of the last round: one says nothing about noise


@dataclass(frozen=True)
class Cost:
    """Estimated seconds of an epoch: of a student alone, of one with a teacher, and of the teacher itself."""

    alone: float
    taught: float
    teacher: float

    @classmethod
    def estimated(cls, student_seconds: float, student_size: float, teacher_size: float) -> "Cost":
        """From the student's own epoch and multiply-adds: a forward pass is a third of a training step."""
        teacher = student_seconds * teacher_size / student_size
        return cls(student_seconds, student_seconds + teacher / 3, teacher)


@dataclass(frozen=True)
class Plan:
    """Epochs of each round, how many candidates it has, and the seeds of the last."""

    epochs: tuple[int, int, int]
    candidates: tuple[int, int, int]
    seeds: int

    @property
    def teacher_epochs(self) -> int:
        return self.epochs[-1]


def seconds_of(epochs: int, seeds: int, cost: Cost, num_alone: int, num_taught: int) -> float:
    """The time of a plan whose last round has that many epochs; those that stay are taken to be taught."""
    first, second, third = (max(1, round(share * epochs)) for share in SHARES)
    _, kept, finalists = survivors(num_alone + num_taught)
    rounds = first * (num_alone * cost.alone + num_taught * cost.taught) + second * kept * cost.taught
    return rounds + third * finalists * seeds * cost.taught + third * cost.teacher


def survivors(number: int) -> tuple[int, int, int]:
    """Candidates in each round."""
    kept = max(2, (number + 1) // 2)
    return number, kept, 2


def make_plan(seconds: float, full_epochs: int, cost: Cost, num_alone: int, num_taught: int) -> Plan | None:
    """The longest plan that fits into `seconds`, up to the full run's epochs; then more seeds. None where none fits."""

    def fits(epochs: int, seeds: int) -> bool:
        return seconds_of(epochs, seeds, cost, num_alone, num_taught) <= seconds

    possible = [
        epochs for epochs in range(min(LEAST_EPOCHS, full_epochs), full_epochs + 1) if fits(epochs, LEAST_SEEDS)
    ]
    if not possible:
        return None
    longest = possible[-1]
    seeds = max(number for number in range(LEAST_SEEDS, MOST_SEEDS + 1) if fits(longest, number))
    epochs = tuple(max(1, round(share * longest)) for share in SHARES)
    return Plan(epochs, survivors(num_alone + num_taught), seeds if longest == full_epochs else LEAST_SEEDS)
