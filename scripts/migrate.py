"""Names the finished runs whose hash is another today, and gives them that hash.

    python scripts/migrate.py                      lists old and new hash of everything below outputs
    python scripts/migrate.py outputs/main --write moves it

What cannot be proven to be the same run stays where it is, with the reason; nothing is removed. The ledger has no run
on a pack, folder or list: `python scripts/ledger.py --check` compares it with the tables' configurations.
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.migrate import find_moves, move
from ltkd.commands.script import Parser, command
from ltkd.errors import UserError

PARSER = Parser(__doc__, takes_settings=False)
PARSER.add_argument("folders", nargs="*", type=Path, default=[Path("outputs")], help="default: outputs")
PARSER.add_argument("--write", action="store_true", help="move them, not only list them")


@command(PARSER)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    absent = [str(folder) for folder in options.folders if not folder.is_dir()]
    if absent:
        raise UserError(f"no such folder: {', '.join(absent)}")
    moves = [planned for folder in options.folders for planned in find_moves(folder)]
    for planned in moves:
        sys.stdout.write(f"{planned.line()}\n")
        if options.write and planned.reason is None:
            move(planned)
    stay = sum(planned.reason is not None for planned in moves)
    done = "moved" if options.write else "to move (--write)"
    sys.stdout.write(f"{len(moves) - stay} {done}, {stay} stay as they are, all others have today's hash\n")


if __name__ == "__main__":
    sys.exit(main())
