"""The rows of the comparison: the plain loop, and the engine with one feature after the other."""

from dataclasses import dataclass

from ltkd.config.schema import Config
from ltkd.methods import method_class


@dataclass(frozen=True)
class Variant:
    """A row of the table: `jobs` trainings of the same pair, each by `ranks` processes, with `overrides` of the
    configuration. together: these trainings take turns in one process."""

    name: str
    overrides: tuple[str, ...] = ()
    plain: bool = False  # the loop as the field writes it, in place of the engine
    jobs: int = 1
    together: bool = False
    ranks: int = 1
    made_up: bool = False  # random images in place of the data set's: where their number of classes is varied


PLAIN = Variant("plain loop", ("precision.autocast=float32", "precision.tf32=false"), plain=True)


def standard_variants(config: Config, on_cuda: bool, jobs: int) -> list[Variant]:
    """The plain loop, then the engine feature by feature, as far as the method and the device have them.

    The last rows run `jobs` trainings side by side: on a GPU in one process, but for compiled ones, as a sweep does.
    """
    steps: list[tuple[str, dict[str, str]]] = [("engine", {}), ("+ bfloat16", {"precision.autocast": "bfloat16"})]
    if on_cuda:
        steps.insert(1, ("+ TF32", {"precision.tf32": "true"}))
        steps.append(("+ CUDA graph", {"run.step": "graph"}))
    if method_class(config.method_name).needs.teacher_logits_only:
        # complete, it is on the GPU; else a file of holes will do
        steps.append(("+ teacher cache", {"cache.mode": "fill" if on_cuda else "lazy", "cache.max_gigabytes": "1000"}))
    steps.append(("+ torch.compile", {"run.step": "compile"}))
    settings = {
        "precision.autocast": "float32",
        "precision.tf32": "false",
        "run.step": "eager",
        "cache.mode": "off",
        "cache.max_gigabytes": "4",
    }
    rows = [PLAIN]
    for name, changes in steps:
        settings |= changes
        rows.append(Variant(name, _overrides(settings)))
    if jobs > 1:
        not_compiled, best = rows[-2:]
        if on_cuda:  # compiled kernels have other last digits
            name = f"{jobs} jobs side by side, not compiled"
            rows.append(Variant(name, not_compiled.overrides, jobs=jobs, together=True))
        rows.append(Variant(f"+ {jobs} jobs side by side", best.overrides, jobs=jobs))
    return rows


def rank_variants(ranks: int, cores: int) -> list[Variant]:
    """One training by 1, 2, 4, ... `ranks` processes, the same batch, with a thread (or GPU) each; then one process
    with a thread for each core. The teacher is live, the step the eager one that processes share."""
    plain = ("run.step=eager", "cache.mode=off")
    numbers = [1]
    while numbers[-1] < ranks:
        numbers.append(min(2 * numbers[-1], ranks))
    rows = [
        Variant(f"{number} process{'es' * (number > 1)}, a thread each", (*plain, "run.threads=1"), ranks=number)
        for number in numbers
    ]
    return [*rows, Variant(f"1 process, {cores} threads", (*plain, f"run.threads={cores}"))]


def scaling_variants(config: Config, on_cuda: bool, max_jobs: int) -> list[Variant]:
    """The fastest single job over batch size, number of classes, and number of jobs."""
    best = standard_variants(config, on_cuda, 1)[-2 if on_cuda else -1]  # there compiling takes longer than measuring

    def variant(name: str, *overrides: str, jobs: int = 1, made_up: bool = False) -> Variant:
        together = on_cuda and jobs > 1
        return Variant(name, (*best.overrides, *overrides), jobs=jobs, together=together, made_up=made_up)

    rows = [variant(f"batch {size}", f"recipe.batch_size={size}") for size in (16, 32, 64, 128, 256, 512)]
    rows += [variant(f"{n} classes", f"dataset.num_classes={n}", made_up=True) for n in (10, 100, 1000)]
    jobs = 1
    while jobs <= max_jobs:
        rows.append(variant(f"{jobs} job{'s' * (jobs > 1)}", jobs=jobs))
        jobs *= 2
    return rows


def _overrides(settings: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in settings.items())
