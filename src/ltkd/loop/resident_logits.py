"""Holds a teacher's logits on all views of all images in the memory of a GPU, where a cache has every one of them.

Then a step's logits are one gather on the device: nothing is read, checked or copied in an epoch, and nothing waits.
"""

import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltkd.loop.teacher_cache import TeacherCache

SHARE = 0.25  # of the GPU's free memory, at most
BLOCK = 4096  # entries that are read and checked at a time


class ResidentLogits:
    """The logits [num_entries, C] of a complete cache; all trainings of a process that read one cache share one."""

    def __init__(self, table: Tensor) -> None:
        self._table = table

    def start_epoch(self) -> None:
        """Tell the allocator that the current stream reads the table: its memory is free only after these reads."""
        if self._table.is_cuda:
            self._table.record_stream(torch.cuda.current_stream(self._table.device))

    def rows(self, entries: Tensor) -> Tensor:
        """Float32 logits [K, C] of the entries int64 [K], which are on the device."""
        return self._table.index_select(0, entries).float()


_in_memory: "weakref.WeakValueDictionary[tuple[Path, torch.device], ResidentLogits]" = weakref.WeakValueDictionary()


def resident_logits(cache: TeacherCache, device: torch.device) -> ResidentLogits | None:
    """Load the cache to the device; None where it is not complete, or one entry damaged, or too large for it."""
    key = (cache.folder.resolve(), device)
    resident = _in_memory.get(key)
    if resident is None and cache.is_complete and fits(cache, device):
        table = _load(cache, device)
        if table is not None:
            resident = _in_memory[key] = ResidentLogits(table)
    return resident


def fits(cache: TeacherCache, device: torch.device) -> bool:
    """True on a GPU with room for it. A CPU reads as fast through a memory map."""
    return device.type == "cuda" and cache.num_bytes <= SHARE * torch.cuda.mem_get_info(device)[0]


def _load(cache: TeacherCache, device: torch.device) -> Tensor | None:
    table = None
    for first in range(0, cache.num_entries, BLOCK):
        logits, is_stored = cache.read(np.arange(first, min(first + BLOCK, cache.num_entries)))
        if not is_stored.all():
            return None
        rows = torch.from_numpy(np.ascontiguousarray(logits))
        if table is None:
            table = torch.empty(cache.num_entries, rows.shape[1], dtype=rows.dtype, device=device)
        table[first : first + len(rows)].copy_(rows)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # it is whole before a stream of another training reads it
    return table
