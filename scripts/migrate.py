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
from ltkd.console import write_plainly
from ltkd.errors import UserError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("outputs")], help="default: outputs")
    parser.add_argument("--write", action="store_true", help="move them, not only list them")
    options = parser.parse_args(arguments)
    moved = stays = 0
    try:
        for folder in options.folders:
            if not folder.is_dir():
                raise UserError(f"no such folder: {folder}")
            for found in list(find_moves(folder)):
                sys.stdout.write(f"{found.line()}\n")
                stays += found.reason is not None
                moved += found.reason is None
                if options.write and found.reason is None:
                    move(found)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    done = "moved" if options.write else "to move (--write)"
    sys.stdout.write(f"{moved} {done}, {stays} stay as they are, all others have today's hash\n")
    return 0


if __name__ == "__main__":
    write_plainly()
    sys.exit(main(sys.argv[1:]))
