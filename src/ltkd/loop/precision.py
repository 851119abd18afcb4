"""Sets the number formats of a run, and deterministic kernels so that it can be repeated."""

import warnings

import torch

from ltkd.config.schema import Precision

TORCH_THREADS = torch.get_num_threads()  # its own choice, before any run of this process sets another
TINY_IMAGE = 8  # pixels a side: more threads gain little here, and on cores that others use too they wait and lose much


def set_backends(precision: Precision, threads: int | str, image_size: int) -> None:
    """Set torch's process-wide switches for this run."""
    with warnings.catch_warnings():
        # torch 2.9 to 2.11 advise another interface, which their own torch.compile does not read
        warnings.filterwarnings("ignore", "Please use the new API settings")
        torch.backends.cuda.matmul.allow_tf32 = precision.tf32
        torch.backends.cudnn.allow_tf32 = precision.tf32
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # would choose kernels by time: other numbers from run to run
    torch.set_num_threads(num_threads(threads, image_size))


def num_threads(threads: int | str, image_size: int) -> int:
    """Threads that run.threads means for images of that size."""
    if threads == "auto":
        return 1 if image_size <= TINY_IMAGE else TORCH_THREADS
    return int(threads)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context of a forward pass.

    Weights are cast anew where they are used: a cast that is remembered does not survive in a captured step, and where
    a network runs twice in a step it would add up the two gradients in half precision.
    """
    enabled = precision.autocast == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=False)
