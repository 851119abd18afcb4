"""The processes that train one run together, as torchrun or SLURM's srun start them.

Every process runs the same program. What differs between them goes through `Ranks`: the images of a batch that are a
process's own, sums and collections over all processes, and the one process, the first, that writes. A run of one
process has a `Ranks()`, whose methods return what they are given.
"""

import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from ltkd.errors import UserError

if TYPE_CHECKING:  # the command line's help reads the environment and needs no torch
    import torch
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=2)  # one process may train a teacher for which the others wait; a dead one is noticed at once
FAILURE = "ltkd/failure"  # key of the message of the process that failed first


class RankLost(UserError):
    """Another process of the run has ended. `told`: it has said why."""

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told


def even_parts(total: int, number: int) -> list[slice]:
    """Cut `total` images into at most `number` parts: neighbours, at least two images each, as even as can be."""
    number = max(1, min(number, total // 2))
    return [slice(total * part // number, total * (part + 1) // number) for part in range(number)]


def consecutive(lengths: Iterable[int]) -> list[slice]:
    """Return slices of these lengths, each from where the one before ends."""
    return [slice(start, end) for start, end in pairwise(accumulate(lengths, initial=0))]


@dataclass(frozen=True)
class Share:
    """The images of a batch that one process runs its networks on: `rows` of the batch, of which `counted` count.

    Where the batch goes through the networks in parts (recipe.accumulation), each part is shared as a batch is.
    A process for which a short batch has no images runs on its first two, so that every network and loss sees what it
    is made for, and none of them count.
    """

    rows: slice
    counted: int
    total: int  # images of the batch, of all processes

    @property
    def weight(self) -> float:
        """The share of the batch's images, by which means over the process's own images are weighted."""
        return self.counted / self.total


class Ranks:
    """This process, `rank` of `size` from 0 on, and what it does together with the others.

    local_rank: its number on its machine, which chooses the GPU. group: of torch.distributed; None is all processes.
    Every collective must be called by all processes, in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, local_rank: int = 0, group: Any = None) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._group = group
        self._moment: tuple[int, ...] = ()
        self._calls = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Ranks":
        """Read the variables of torchrun, or of the tasks of one srun. No process is waited for: see `join`."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if "SLURM_STEP_NUM_TASKS" in environment and "WORLD_SIZE" not in environment:
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        try:
            rank, size, local_rank = (
                int(environment.get(name, default)) for name, default in zip(names, "010", strict=True)
            )
        except ValueError as error:
            raise UserError(f"{', '.join(names)}: should be whole numbers, as torchrun sets them ({error})") from error
        return cls(rank, size, local_rank=local_rank) if size > 1 else cls()

    @property
    def is_first(self) -> bool:
        """True for the one process that writes files, tracks and shows progress."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def join(self) -> None:
        """Wait for all processes and connect with them: gloo for tensors on the CPU, NCCL for those on GPUs."""
        if self.alone:
            return
        import torch
        import torch.distributed as distributed

        _set_address_from_slurm()
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UserError(f"{' and '.join(missing)}: not set; start several processes with torchrun or srun")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with self._noticing_the_lost():
            distributed.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=PATIENCE)

    def leave(self) -> None:
        """Disconnect, at the end of a run that went well."""
        if not self.alone:
            import torch.distributed as distributed

            distributed.destroy_process_group()

    # ---------------------------------------------------------------------------------------------- shares of the work

    def shares(self, total: int) -> list[Share]:
        """The share of each process in a batch of `total` images: neighbours, at least two, as even as can be."""
        shares = [Share(rows, rows.stop - rows.start, total) for rows in even_parts(total, self.size)]
        return shares + [Share(slice(0, min(2, total)), 0, total)] * (self.size - len(shares))

    def share(self, total: int) -> Share:
        """The own one of `shares`."""
        return self.shares(total)[self.rank]

    def block(self, total: int, unit: int = 1) -> slice:
        """The own part of `total` things, cut at multiples of `unit`; of several processes some may have none."""
        units = -(-total // unit)
        return slice(*(min(total, units * rank // self.size * unit) for rank in (self.rank, self.rank + 1)))

    # ----------------------------------------------------------------------------------------------------- collectives

    def sum(self, tensors: "Sequence[Tensor]") -> "list[Tensor]":
        """The sums of tensors over the processes, in one message, in the widest of their number formats."""
        if self.alone:
            return list(tensors)
        import torch
        import torch.distributed as distributed

        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with self._noticing_the_lost():
            distributed.all_reduce(flat, group=self._group)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]

    def gather_bytes(self, rows: "Tensor", counts: Sequence[int]) -> "Tensor":
        """All processes' rows, uint8 [count, bytes] each, one below the other: [sum of counts, bytes]."""
        import torch
        import torch.distributed as distributed

        longest = max(counts)
        padded = rows.new_zeros(longest, rows.shape[1])
        padded[: len(rows)] = rows
        everything = rows.new_empty(self.size * longest, rows.shape[1])
        with self._noticing_the_lost():
            distributed.all_gather_into_tensor(everything, padded, group=self._group)
        return torch.cat([part[:count] for part, count in zip(everything.split(longest), counts, strict=True)])

    def gather_objects(self, value: T) -> list[T]:
        """The value of every process, by rank; small ones, by pickle."""
        if self.alone:
            return [value]
        import torch.distributed as distributed

        values: list[Any] = [None] * self.size
        with self._noticing_the_lost():
            distributed.all_gather_object(values, value, group=self._group)
        return values

    def largest(self, value: int) -> int:
        """The largest of the processes' whole numbers."""
        if self.alone:
            return value
        import torch
        import torch.distributed as distributed

        tensor = torch.tensor([value])
        with self._noticing_the_lost():
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX, group=self._group)
        return int(tensor)

    def equalize(self, tensors: "Sequence[Tensor]") -> None:
        """Give every process the first one's values, in place and bit for bit."""
        if self.alone or not tensors:
            return
        import torch
        import torch.distributed as distributed

        with torch.no_grad(), self._noticing_the_lost():
            flat = torch.cat([tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in tensors])
            distributed.broadcast(flat, group_src=0, group=self._group)
            parts = flat.split([tensor.numel() * tensor.element_size() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))  # a copy: where it begins is aligned

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process alone. What it returns or raises, all processes return or raise.

        `make` must not call a collective.
        """
        if self.alone:
            return make()
        import torch.distributed as distributed

        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = make()
            except Exception as error:  # noqa: BLE001  raised again below
                outcome[1] = error
        sent = [outcome[0], _that_can_be_sent(outcome[1])]
        with self._noticing_the_lost():
            distributed.broadcast_object_list(sent, group_src=0, group=self._group)
        value, error = outcome if self.is_first else sent
        if error is not None:
            raise error
        return value

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run a block first in the first process, then in one of each machine, then in all others.

        What one makes on a disk, the later ones find there. An error of one process does not stop the others' blocks.
        """
        turn = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.largest(0)
        try:
            yield
        except RankLost:
            raise
        except Exception:
            for _ in range(turn, 2):
                self.largest(0)
            raise
        for _ in range(turn, 2):
            self.largest(0)

    # -------------------------------------------------------------------------------------------------- random numbers

    def at(self, *moment: int) -> None:
        """Say which step it is, by numbers that no other step has; `own_random` depends on it."""
        self._moment, self._calls = moment, 0

    @contextmanager
    def own_random(self, device: "torch.device") -> Iterator[None]:
        """Give each process random numbers of its own in the block; the common ones go on behind it as before.

        The common ones are those of a process alone. They are the same in all processes as long as all draw alike.
        """
        if self.alone:
            yield
            return
        import numpy as np
        import torch

        self._calls += 1
        key = (*self._moment, self._calls, self.rank)
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    # -------------------------------------------------------------------------------------------------------- failures

    def may_tell(self, message: str) -> bool:
        """True in the first process that fails, which says why, with `message`; the others read it."""
        if self.alone:
            return True
        try:
            report = f"rank {self.rank}: {message}"
            return self._store().compare_set(FAILURE, "", report).decode() == report
        except (RuntimeError, ValueError, AttributeError):  # the store went with its process, or was never there
            return self.is_first

    @contextmanager
    def _noticing_the_lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> RankLost:
        reason = " ".join(str(error).split())[:120]
        with suppress(RuntimeError, ValueError, AttributeError):  # the store went with its process
            store = self._store()
            if store.check([FAILURE]):
                return RankLost(f"another process of this run ended: {store.get(FAILURE).decode()}", told=True)
        message = "another process of this run ended (killed, or its machine is gone)"
        return RankLost(f"{message}; the same command goes on from the last checkpoint [{reason}]", told=False)

    @staticmethod
    def _store() -> Any:
        import torch.distributed as distributed

        return distributed.distributed_c10d._get_default_store()


def _that_can_be_sent(error: Exception | None) -> Exception | None:
    """The error, or one with its message where pickle cannot copy it."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  whatever an error's own constructor raises
        return RuntimeError(f"{type(error).__name__}: {error}")


def _set_address_from_slurm() -> None:
    """Have the tasks of an srun meet at the first of their machines, at a port that the job's number gives."""
    if "SLURM_STEP_NODELIST" not in os.environ:
        return
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", os.environ["SLURM_STEP_NODELIST"])  # gpu[003-004,010],login1
    if first is not None:
        os.environ.setdefault("MASTER_ADDR", first[1] + (first[2] or ""))
    job = int(os.environ.get("SLURM_JOB_ID", "0")) + int(os.environ.get("SLURM_STEP_ID", "0"))
    os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))
