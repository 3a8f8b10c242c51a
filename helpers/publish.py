"""Puts the series where a reader finds it: its address into every notebook and the README, and folders to push to Kaggle.

    python -m helpers.publish links OWNER/REPO     # the address on GitHub: the first cell of every notebook, and badges
    python -m helpers.publish kaggle --user NAME   # one folder a notebook, and one with the helpers, for the kaggle command
    python -m helpers.publish cells                # helpers/bootstrap.py into the first cell of every notebook
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from helpers.environment import ROOT
from helpers.errors import InputError
from helpers.first_cell import find_tag, write_cells, write_links


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "links":
            changed = write_links(options.repository)
            print(f"{options.repository} written into: {', '.join(changed) or 'nothing, all of it was there'}")
            tag = find_tag()
            print(f"The first cell clones a tag. Commit this, then:\n  git tag {tag}\n  git push origin HEAD {tag}")
        elif options.command == "cells":
            print(f"first cell written into: {', '.join(write_cells()) or 'nothing, all notebooks had it'}")
        else:
            # Imported here: --help must not wait for pandas.
            from helpers.kaggle_folders import instructions, write_folders

            out = options.out or ROOT / "outputs" / "kaggle"
            print(instructions(write_folders(options.user, out), options.user, out))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.publish", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    links = commands.add_parser("links", help="write the project's address on GitHub into notebooks and README")
    links.add_argument("repository", metavar="OWNER/REPO")
    commands.add_parser("cells", help="write helpers/bootstrap.py into the first cell of every notebook")
    kaggle = commands.add_parser("kaggle", help="make the folders that the kaggle command pushes")
    kaggle.add_argument("--user", required=True, metavar="NAME", help="your name on Kaggle, as in kaggle.com/NAME")
    kaggle.add_argument("--out", type=Path, metavar="DIR", help="default: outputs/kaggle")
    return parser


if __name__ == "__main__":
    sys.exit(main())
