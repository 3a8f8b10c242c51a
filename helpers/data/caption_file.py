"""A caption table as people write it by hand and by program: rows of image and caption, read row by row, every slip counted.

image,caption                                      image_name| comment_number| comment
dog.jpg,A dog runs .                               dog.jpg| 0| A dog runs .
dog.jpg,"A dog , brown and wet , shakes itself ."  dog.jpg| 1   A dog runs across the grass .      <- delimiter lost
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from helpers.data.images import EXTENSIONS
from helpers.data.report import EMPTY, MALFORMED, REPAIRED, Report
from helpers.environment import shown
from helpers.errors import InputError

_DELIMITERS = {",": "commas", "|": "pipes", "\t": "tabs", ";": "semicolons"}
_IMAGE_COLUMNS = {"image", "image_name", "image_id", "filename", "file_name", "file"}
_CAPTION_COLUMNS = {"caption", "comment", "captions", "text"}
_QUOTED = r'\s*"((?:[^"]|"")*)"\s*'
_NUMBER_THEN_CAPTION = r"\s*(\d+)\s+(\S.*)"
_ROW_START = rf'.*?({"|".join(re.escape(extension) for extension in sorted(EXTENSIONS))})"?\s*[,|]'

Row = tuple[str, str, bool]  # image, caption, whether it was repaired


def read_rows(path: Path, delimiter: str, report: Report) -> tuple[list[str], list[str]]:
    """Read a table of two columns (image, caption) or three (image, number, caption) with a header line.

    Returns (images, captions), parallel, in file order. A caption may hold delimiters: it ends with its line, unless it is
    quoted as in CSV. Malformed rows and empty captions are counted in `report` and dropped. Raises InputError for a wrong
    encoding, delimiter or header, or where no row is left.
    """
    lines = decode(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    parse = _parse_two if _count_columns(path, lines[0], delimiter) == 2 else _parse_three
    images, captions = [], []
    for number, record in _records(lines):
        row = parse(record, delimiter)
        if row is None:
            report.add(MALFORMED, f"line {number}: {shorten(record)}")
            continue
        image, caption, repaired = row
        if repaired:
            report.add(REPAIRED, f"line {number}: {shorten(record)}")
        if caption:
            images.append(image)
            captions.append(caption)
        else:
            report.add(EMPTY, f"line {number}: {image}")
    if not images:
        raise InputError(f"{shown(path)}: no captions in this file")
    return images, captions


def decode(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises InputError naming the first wrong byte."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{shown(path)}: UTF-16 where UTF-8 is expected; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Counted on the bytes of the file: the decoder's own position leaves out a byte order mark.
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, start) + 1
        raise InputError(
            f"{shown(path)}: not UTF-8: byte {start}, on line {line}, is 0x{data[start]:02x}. Files saved by Windows programs "
            "are often cp1252; this converts one: iconv -f cp1252 -t utf-8 OLD > NEW"
        ) from error


def shorten(text: str, width: int = 60) -> str:
    """`text` in quotes, cut to about `width` characters."""
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _count_columns(path: Path, header: str, delimiter: str) -> int:
    """2 or 3, where the header names an image column first and a caption column last."""

    def columns(mark: str) -> int:
        names = [name.strip().strip('"').lower() for name in header.split(mark)]
        known = names[0] in _IMAGE_COLUMNS and names[-1] in _CAPTION_COLUMNS
        return len(names) if known and len(names) in (2, 3) else 0

    if columns(delimiter):
        return columns(delimiter)
    for mark, word in _DELIMITERS.items():
        if columns(mark):
            expected = _DELIMITERS[delimiter]
            raise InputError(f"{shown(path)}: separated by {word} ({mark!r}) where {expected} ({delimiter!r}) are expected")
    raise InputError(f"{shown(path)}: the first line must be 'image{delimiter}caption', found {shorten(header)}")


def _records(lines: list[str]) -> Iterator[tuple[int, str]]:
    """(line number, record) of all rows below the header. A quoted caption may run over several lines."""
    row_start = re.compile(_ROW_START, re.IGNORECASE)
    at = 1
    while at < len(lines):
        record, used = lines[at], 1
        if record.count('"') % 2:  # an open quote: join the lines up to its end, but never one that starts a new row
            joined = record
            for following, line in enumerate(lines[at + 1 :], 2):
                if row_start.match(line):
                    break
                joined += " " + line
                if joined.count('"') % 2 == 0:
                    record, used = joined, following
                    break
        if record.strip():
            yield at + 1, record
        at += used


def _parse_two(record: str, delimiter: str) -> Row | None:
    image, rest = _take_image(record, delimiter)
    return (image, _unquote(rest), False) if image and rest is not None else None


def _parse_three(record: str, delimiter: str) -> Row | None:
    image, rest = _take_image(record, delimiter)
    if not image or rest is None:
        return None
    number, found, caption = rest.partition(delimiter)
    if found and number.strip().isdecimal():
        return image, _unquote(caption), False
    # Flickr30k has one such row: `2199200615.jpg| 4   A dog runs across the grass .`
    lost = re.fullmatch(_NUMBER_THEN_CAPTION, rest.rstrip(delimiter + " "))
    return (image, _unquote(lost[2]), True) if lost else None


def _take_image(record: str, delimiter: str) -> tuple[str, str | None]:
    """Split at the first delimiter outside quotes."""
    quoted = re.match(_QUOTED, record) if record.startswith('"') else None
    if quoted and record[quoted.end() :].startswith(delimiter):
        return quoted[1].replace('""', '"').strip(), record[quoted.end() + 1 :]
    image, found, rest = record.partition(delimiter)
    return image.strip(), rest if found else None


def _unquote(field: str) -> str:
    quoted = re.fullmatch(_QUOTED, field) if '"' in field else None
    return (quoted[1].replace('""', '"') if quoted else field).strip()
