"""Prints the methods, task losses and networks: `python src/train.py --list`."""

import argparse
import re
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.config.compose import CONFIGURATION
from ltkd.errors import UserError

PAGE = Path(__file__).with_name("methods.md").resolve()  # a link to docs/, so that an installed package has it too
PAIR = ("resnet32x4", "resnet8x4")  # the field's main pair
SECTION = re.compile(r"^## (.+?)\n(.+?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SHOWN = ("Distillation methods", "Losses on the labels", "Networks")  # of the page's sections
PARSER = Parser(
    """Lists methods, losses on the labels, and networks, with costs and sizes.

    python src/train.py --list                                  as docs/methods.md has them
    python src/train.py --list teacher=vgg13 student=vgg8       extra parameters and cost counted for that pair
""",
    takes_settings=False,
)
PARSER.add_argument("--list", action="store_true", required=True, help="this list")
PARSER.add_argument("--teacher", metavar="NETWORK", help=f"default: {PAIR[0]}")
PARSER.add_argument("--student", metavar="NETWORK", help=f"default: {PAIR[1]}")


@command(PARSER)
def show(options: argparse.Namespace, settings: list[str]) -> None:
    tables = page_tables()
    if options.teacher or options.student:
        from ltkd.commands.catalogue import methods_table  # here: it needs torch, which takes seconds to import

        tables[0] = methods_table(options.teacher or PAIR[0], options.student or PAIR[1])
    sys.stdout.write("\n\n".join(tables) + "\n")


def page_tables() -> list[str]:
    """The tables of methods, task losses and networks, as they were counted when docs/methods.md was written.

    UserError when the page does not have the methods of conf/method/: one was added since.
    """
    sections = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))
    methods, *other_sections = (sections[title].strip() for title in SHOWN)
    listed = {line.split("|")[1].strip() for line in methods.splitlines()[2:] if line.startswith("|")}
    differing = listed ^ {path.stem for path in (CONFIGURATION / "method").glob("*.yaml")}
    if differing:
        raise UserError(
            f"docs/methods.md is not up to date ({', '.join(sorted(differing))}); write it anew: "
            "python scripts/methods_page.py"
        )
    return [methods, *other_sections]
