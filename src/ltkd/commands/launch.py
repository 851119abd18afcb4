"""Launches a run from Hydra's composed configuration: messages, errors, and how one job of a multirun ends."""

import logging
import signal
import sys

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltkd.config.compose import refusal
from ltkd.config.load import load_config
from ltkd.console import Console
from ltkd.errors import EXIT_BUSY, UserError
from ltkd.loop.interrupt import end_on_signals
from ltkd.ranks import RankLost, Ranks
from ltkd.results.read import run_table
from ltkd.runs.run import run_experiment

logger = logging.getLogger("ltkd")


def launch(composed: DictConfig) -> None:
    """Check, run, print the table of teacher and student.

    What the user can mend is one message on standard error without a traceback, and exit code 2; a run that another
    process works on is left alone with exit code 75. In a multirun every error is logged when it happens and raised:
    Hydra goes on with the other jobs and ends with an exit code other than 0. Of several processes that torchrun or
    srun started, the first alone speaks, and the one that fails first.
    """
    ranks = Ranks.from_environment()
    _log_to_console(ranks)
    end_on_signals()  # while a network is trained, its Trainer answers
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        if not ranks.alone:
            logger.info("waiting for all %d processes", ranks.size)
        ranks.join()
        config = load_config(_plain(composed))
        result = run_experiment(config, ranks)
        ranks.leave()
        if result is not None:
            logger.info("%s", run_table(result))
        elif multirun:
            raise UserError("a job was left alone")
        else:
            raise SystemExit(EXIT_BUSY)
    except KeyboardInterrupt:
        if ranks.is_first:
            logger.error("stopped; the same command goes on from the last checkpoint")
        raise SystemExit(128 + signal.SIGINT) from None
    except UserError as error:
        told = isinstance(error, RankLost) and error.told
        if not told and ranks.may_tell(str(error)):
            logger.error("error: %s", error)
        if not multirun:
            raise SystemExit(2) from None
        raise error.with_traceback(None) from None
    except Exception as error:
        if ranks.may_tell(f"{type(error).__name__}: {error}"):
            logger.exception("job failed")
        if not multirun:
            raise SystemExit(1) from None
        raise


def _plain(composed: DictConfig) -> dict:
    try:
        return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise refusal(error) from error


def _log_to_console(ranks: Ranks) -> None:
    """Sends plain messages to standard output, errors to standard error, and nothing by way of Hydra.

    Of several processes the first sends all, the others their errors.
    """
    messages, errors = Console(sys.stdout), Console(sys.stderr)
    messages.addFilter(lambda record: ranks.is_first and record.levelno < logging.ERROR)
    messages.setLevel(logging.INFO)
    errors.setLevel(logging.ERROR)
    for handler in (messages, errors):
        handler.setFormatter(logging.Formatter("%(message)s" if ranks.is_first else f"rank {ranks.rank}: %(message)s"))
    logging.getLogger("ltkd").setLevel(logging.DEBUG)  # what is for the log file of a run alone
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers = [messages, errors]
