"""Turns a function into a command line: arguments, help, one line for what the user can mend, exit codes."""

import argparse
import functools
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence

from ltkd.console import write_plainly
from ltkd.errors import UserError
from ltkd.ranks import Ranks

SETTINGS = "further arguments KEY=VALUE are settings, those of src/train.py; options can be written KEY=VALUE too"

Main = Callable[[argparse.Namespace, list[str]], int | None]


class Parser(argparse.ArgumentParser):
    """Takes a script's docstring as its help. What is wrong is a UserError and not a page of usage."""

    def __init__(self, description: str, *, takes_settings: bool = True) -> None:
        super().__init__(
            description=description,
            epilog=SETTINGS if takes_settings else None,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.takes_settings = takes_settings

    def add_table(self) -> None:
        """Adds --table, for `ltkd.tables.file.load_table`."""
        self.add_argument(
            "--table", metavar="NAME", help="one of conf/table/, or a file of your own that ends in .yaml"
        )

    def add_workers(self) -> None:
        """Adds --jobs, --devices and --minutes, the num_workers, devices and minutes of `ltkd.sweep.run_jobs`."""
        jobs = "runs at a time (default: one per GPU, else per CPU core); those of one GPU are in one process"
        self.add_argument("--jobs", type=whole_number, metavar="N", help=jobs)
        self.add_argument("--devices", type=indices, metavar="0,1", help="the GPUs to use (default: all)")
        minutes = "stop all runs after so long, saved; the exit code is 124 where some are left (default: no limit)"
        self.add_argument("--minutes", type=number, metavar="N", help=minutes)

    def split(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Returns the script's options, and the settings, unchecked. jobs=2, --jobs=2 and --jobs 2 are the same."""
        keys = {key for key in self._option_string_actions if key.startswith("--")}
        typed_options: list[str] = []
        typed_settings: list[str] = []
        for argument in arguments:
            is_option = "=" in argument and f"--{argument.partition('=')[0]}" in keys
            (typed_options if is_option else typed_settings).append(f"--{argument}" if is_option else argument)
        # options first: argparse takes no list of files with options in between
        written_out = [*typed_options, *typed_settings]
        if empty := [argument for argument in written_out if argument.endswith("=") and argument[:-1] in keys]:
            self.error(f"{empty[0].strip('-=')}: has no value")
        options, settings = self.parse_known_args(written_out)
        unknown = [setting for setting in settings if setting.startswith("-") or not self.takes_settings]
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}; options: {', '.join(sorted(keys))}")
        options.typed = shlex.join(arguments)  # for a file that says which command wrote it
        return options, settings

    def error(self, message: str) -> None:
        raise UserError(message.removeprefix("argument "))


def command(parser: Parser, *, help_without_arguments: bool = False) -> Callable[[Main], Callable[..., int]]:
    """Makes main(arguments) -> exit code of a function of the parsed options and the settings.

    2: a UserError, as one line. 130: Ctrl-C. 141: the reader of standard output has gone, as `| head` does. A SIGTERM
    that a training has answered ends with the code of ltkd.loop.interrupt.Interrupted.
    """

    def decorate(function: Main) -> Callable[..., int]:
        @functools.wraps(function)
        def main(arguments: Sequence[str] | None = None) -> int:
            write_plainly()
            arguments = sys.argv[1:] if arguments is None else list(arguments)
            try:
                if help_without_arguments and not arguments:
                    parser.print_help()
                    return 0
                if not Ranks.from_environment().alone:
                    raise UserError(
                        "WORLD_SIZE: torchrun and srun start several processes of src/train.py, and one of any other "
                        "command; start this one by itself"
                    )
                code = function(*parser.split(arguments)) or 0
                sys.stdout.flush()
                return code
            except UserError as error:
                sys.stderr.write(f"error: {error}\n")
                return 2
            except KeyboardInterrupt:
                sys.stderr.write("stopped; repeat the command to go on\n")
                return 128 + signal.SIGINT
            except BrokenPipeError:
                # what is still buffered would be written, and fail, when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 128 + signal.SIGPIPE

        return main

    return decorate


def whole_number(text: str) -> int:
    """An option's value that counts something, from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number from 1 on, got {text!r}")
    return int(text)


def number(text: str, lowest: float = 0, highest: float = math.inf) -> float:
    """An option's value that is a finite number in a range."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (lowest <= value <= highest and math.isfinite(value)):
        end = "on" if highest == math.inf else f"to {highest}"
        raise argparse.ArgumentTypeError(f"should be a number from {lowest} {end}, got {text!r}")
    return value


def indices(text: str) -> list[int]:
    """Numbers with commas between them: 0,1."""
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"should be numbers like 0,1, got {text!r}")
    return [int(part) for part in text.split(",")]
