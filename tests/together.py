"""Several processes of one run: forked, so that nothing is imported again, and connected by gloo on this machine."""

import multiprocessing
import os
import socket
import traceback

import torch

from ltkd.ranks import Ranks

PATIENCE = 600  # seconds; a busy machine is slow


def run_together(size, function, *arguments):
    """`function(ranks, *arguments)` in `size` processes. Returns what each returns, or None for one that was killed.

    An exception of `function` fails the test. What is returned should be small: a pipe holds it.
    """
    context = multiprocessing.get_context("fork")
    results = [context.SimpleQueue() for _ in range(size)]
    port = free_port()
    processes = [
        context.Process(target=_work, args=(rank, size, port, results[rank], function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(PATIENCE)
        assert all(process.exitcode is not None for process in processes), "a process waits for ever"
        found = [None if one.empty() else one.get() for one in results]
    finally:
        for process in processes:
            process.kill()
    for failure in found:
        assert not (isinstance(failure, str) and failure.startswith("Traceback")), failure
    return found


def _work(rank, size, port, results, function, arguments):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    ranks = Ranks(rank, size, local_rank=rank)
    try:
        ranks.join()
        results.put(function(ranks, *arguments))
    except BaseException:
        results.put(traceback.format_exc())
        raise


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
