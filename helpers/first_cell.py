"""The first cell and the badges of every notebook, written from one place: helpers/bootstrap.py.

The first code cell of every notebook is that file's text, and the project's address on GitHub stands there alone: the
notebooks' copies and the badges in notebooks and README are written from it. Outputs and counts stay as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from helpers.environment import ROOT
from helpers.errors import InputError
from helpers.files import atomic_path

BOOTSTRAP = "helpers/bootstrap.py"
ADDRESS = re.compile(r'^REPOSITORY = "(.*)"', re.MULTILINE)
VERSION = re.compile(r'^VERSION = "(.*)"', re.MULTILINE)

# An owner: up to 39 letters, digits and single hyphens inside; a repository: also dots and underscores.
REPOSITORY = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.\.?$)[A-Za-z0-9._-]{1,100}")

BADGE = "[![Open in Kaggle]({kaggle_svg})]({kaggle}{github}) [![Open in Colab]({colab_svg})]({colab}{path})"
HOSTS = {
    "kaggle_svg": "https://kaggle.com/static/images/open-in-kaggle.svg",
    "kaggle": "https://kaggle.com/kernels/welcome?src=",
    "colab_svg": "https://colab.research.google.com/assets/colab-badge.svg",
    "colab": "https://colab.research.google.com/github/",
}
BADGES = re.compile(r"\[!\[Open in Kaggle\]\([^)]*\)\]\([^)]*\) \[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")
ROW = re.compile(r"^\| *\[[^]\n]*\]\(notebooks/(\w+)\.ipynb\)", re.MULTILINE)  # of the README's table of notebooks


def write_links(repository: str, root: Path = ROOT) -> list[str]:
    """Write OWNER/REPO into helpers/bootstrap.py, every notebook's first cell, and badges into notebooks and README.md.

    Badges that are there, of whatever address, are replaced. Returns the names of the files that changed. Raises InputError,
    before anything is written, for what is no OWNER/REPO, a notebook without the cell, and a README without its table.
    """
    if not REPOSITORY.fullmatch(repository) or repository.endswith(".git"):
        raise InputError(f"{repository!r} is no repository of GitHub: give OWNER/REPO, as in github.com/OWNER/REPO")
    cell = ADDRESS.sub(f'REPOSITORY = "{repository}"', (root / BOOTSTRAP).read_text(encoding="utf-8"))
    texts = {root / BOOTSTRAP: cell, root / "README.md": _badged_readme(root / "README.md", repository)}
    for path in find_notebooks(root):
        texts[path] = _edited(path, cell, repository)
    return _write(texts)


def write_cells(root: Path = ROOT) -> list[str]:
    """Make the first code cell of every notebook the text of helpers/bootstrap.py: the names of those that changed.

    Raises InputError, before anything is written, where a notebook's first code cell is another one.
    """
    cell = (root / BOOTSTRAP).read_text(encoding="utf-8")
    return _write({path: _edited(path, cell) for path in find_notebooks(root)})


def find_tag(root: Path = ROOT) -> str:
    """The tag that the first cell clones, such as v0.1.0."""
    return VERSION.search((root / BOOTSTRAP).read_text(encoding="utf-8"))[1]


def find_notebooks(root: Path) -> list[Path]:
    """The notebooks of the series, in reading order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def badges(repository: str, notebook: str) -> str:
    """The two badges, as Markdown, that open a notebook of the main branch on Kaggle and on Colab."""
    path = f"{repository}/blob/main/notebooks/{notebook}.ipynb"
    return BADGE.format(path=path, github=f"https://github.com/{path}", **HOSTS)


def _edited(path: Path, cell: str, repository: str | None = None) -> str:
    """The notebook's JSON with this first code cell and, if an address is given, with badges; nothing else is changed.

    Jupyter writes its files with indent 1 and unescaped; keys stay in their order.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    first = next((cell for cell in notebook["cells"] if cell["cell_type"] == "code"), None)
    if first is None or not ADDRESS.search("".join(first["source"])):
        raise InputError(f"{path.name}: its first code cell is not the one that finds the project. Put an empty REPOSITORY "
                         '= "" cell there, and it is filled')
    _set_source(first, cell.rstrip("\n"))
    if repository:
        title = notebook["cells"][0]
        if title["cell_type"] != "markdown":
            raise InputError(f"{path.name}: its first cell is no Markdown: there is no place for the badges")
        heading, _, rest = "".join(title["source"]).partition("\n")
        rest = BADGES.sub("", rest).lstrip("\n")
        _set_source(title, "\n\n".join(filter(None, (heading, badges(repository, path.stem), rest))))
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _set_source(cell: dict, text: str) -> None:
    cell["source"] = text.splitlines(keepends=True)


def _badged_readme(readme: Path, repository: str) -> str:
    """The README with badges under each notebook's name in the table of notebooks."""
    text = re.sub(rf"<br>{BADGES.pattern}", "", readme.read_text(encoding="utf-8"))
    if not ROW.search(text):
        raise InputError(f"{readme.name} has no table whose rows begin with | [title](notebooks/NAME.ipynb)")
    return ROW.sub(lambda row: f"{row[0]}<br>{badges(repository, row[1])}", text)


def _write(texts: dict[Path, str]) -> list[str]:
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        with atomic_path(path) as temporary:
            temporary.write_text(texts[path], encoding="utf-8")
    return [path.name for path in changed]
