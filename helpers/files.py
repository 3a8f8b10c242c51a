"""Files that are either whole or absent: every write goes to a temporary sibling that is renamed at the end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there (a file or a folder) replaces `path` on success.

    On any exception, Ctrl-C included, the temporary is removed and whatever stood at `path` before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, so that writers which look at it (matplotlib, numpy) see the right one.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():  # a folder cannot be renamed over a folder that is not empty
            replaced = path.with_name(f".{path.name}.{os.getpid()}.replaced")
            _remove(replaced)
            path.rename(replaced)
            temporary.rename(path)
            _remove(replaced)
        else:
            temporary.replace(path)
    finally:
        _remove(temporary)


def write_json(path: str | Path, content: object) -> Path:
    """Write `content` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Path(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
