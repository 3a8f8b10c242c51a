"""Find pictures by words: `python -m helpers.search --folder DIR "one dog sitting in grass"`.

Prints the best pictures, best first: rank, score (the cosine of picture and query) and path, tab-separated; with several
queries, each above its own. Writes them as one page too, which needs no other file. Each picture is encoded once: the next
search in the same folder takes seconds.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import InputError

if TYPE_CHECKING:
    from helpers.data.encoders import ClipEncoder

SHIPPED = "data/tiny/clip-vit.pt"
THUMBNAIL = 320  # pixels of the longer side

Found = list[tuple[str, list[tuple[float, Path]]]]  # each query with the scores and pictures found, best first

# The browser's own colours, light or dark as its user has them.
STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.4; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; }
h1 { font-size: 1rem; font-weight: normal; margin: 0; opacity: .8; }
h2 { font-size: 1.4rem; margin: 1.5rem 0 .75rem; overflow-wrap: anywhere; }
ol { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); list-style: none;
     margin: 0; padding: 0; }
figure { border: 1px solid #8886; border-radius: .5rem; margin: 0; overflow: hidden; }
img { aspect-ratio: 4 / 3; background: #8882; display: block; height: auto; object-fit: contain; width: 100%; }
figcaption { display: flex; font-size: .9rem; gap: .75rem; padding: .5rem .75rem; }
.score { font-variant-numeric: tabular-nums; font-weight: 600; }
.path { overflow-wrap: anywhere; }
"""


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: every picture was looked at; 1: some could not be read (named on stderr); 2: nothing could be done."""
    options = _parser().parse_args(arguments)
    try:
        return _search(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _search(options: argparse.Namespace) -> int:
    queries = [" ".join(query.split()) for query in options.queries]
    if not all(queries):
        raise InputError('a query is empty: say what the picture shows, such as "one dog sitting in grass"')
    if options.k < 1:
        raise InputError(f"--k must be at least 1, not {options.k}")
    if Path(options.html).is_dir():
        raise InputError(f"{options.html} is a folder: give a file (--html)")

    # Imported here, not above: --help must not wait for torch.
    from helpers.data.images import find_images
    from helpers.environment import find_place, find_work_dir, quiet_libraries, shown

    folder = Path(options.folder)
    images = [path.relative_to(folder).as_posix() for path in find_images(folder, recursive=options.recursive)]
    quiet_libraries()
    from helpers.retrieval import Gallery

    encoder = _load(options)
    gallery = Gallery.of_pictures(encoder, folder, images, find_work_dir(find_place()) / "data" / "cache")
    for error in gallery.broken.values():
        print(f"error: {printable(error)}", file=sys.stderr)
    matches = gallery.search(encoder.encode_texts(queries), options.k)
    found = [(query, [(match.score, folder / match.item) for match in best])
             for query, best in zip(queries, matches, strict=True)]  # fmt: skip
    for query, best in found:
        if len(found) > 1:
            print(query)
        for rank, (score, path) in enumerate(best, start=1):
            print(f"{rank}\t{score:.3f}\t{printable(shown(path))}")
    by = options.checkpoint or options.clip or SHIPPED
    _write(options.html, page(found, f"{len(gallery):,} pictures in {shown(folder)}, by {by}"))
    return 1 if gallery.broken else 0


def _load(options: argparse.Namespace) -> ClipEncoder:
    """CLIP, or a dual encoder, which has the same face."""
    if options.checkpoint:
        from helpers.contrast import load_finder

        return load_finder(options.checkpoint, device=options.device)
    from helpers.data.encoders import load_clip

    if not options.clip:
        print(f"using the shipped small CLIP ({SHIPPED}), which has seen drawn pictures only; for photos give another "
              "(--clip ViT-B/32), or a dual encoder of your own (--checkpoint DIR)", file=sys.stderr)
    return load_clip(options.clip or SHIPPED, options.device)


def page(found: Found, searched: str) -> str:
    """The results as one HTML page that needs no other file. searched: a line that says among what."""
    title = printable(" · ".join(query for query, _ in found))
    sections = "\n".join(_section(query, best) for query, best in found)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{html.escape(printable(searched))}</h1>
{sections}
</body>
</html>
"""


def _section(query: str, best: list[tuple[float, Path]]) -> str:
    figures = "\n".join(_figure(query, rank, score, path) for rank, (score, path) in enumerate(best, start=1))
    return f"<section>\n<h2>{html.escape(printable(query))}</h2>\n<ol>\n{figures}\n</ol>\n</section>"


def _figure(query: str, rank: int, score: float, path: Path) -> str:
    from helpers.data.images import open_image
    from helpers.environment import shown

    thumbnail = open_image(path)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    packed = io.BytesIO()
    thumbnail.save(packed, "JPEG", quality=85)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    alt = html.escape(printable(f"{path.name}, number {rank} for: {query}"))
    place = html.escape(printable(shown(path))).replace("/", "/<wbr>")  # where a long path may be broken
    return (
        f'<li><figure><img src="data:image/jpeg;base64,{data}" alt="{alt}" width="{thumbnail.width}" '
        f'height="{thumbnail.height}"><figcaption><span class="score">{score:.3f}</span>'
        f'<span class="path">{place}</span></figcaption></figure></li>'
    )


def printable(text: str) -> str:
    """`text` with a � for what would break a line, a table or a page: tabs, line ends, bytes of a name that are no UTF-8."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _write(path: str, text: str) -> None:
    from helpers.files import atomic_path

    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give another file (--html)") from error
    print(f"written: {path}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.search", description=__doc__)
    parser.add_argument("queries", nargs="+", metavar="QUERY", help='what to look for: "one dog sitting in grass"')
    parser.add_argument("--folder", required=True, metavar="DIR", help="where to look")
    parser.add_argument("--recursive", action="store_true", help="also in the folders inside it")
    parser.add_argument("--k", type=int, default=9, metavar="N", help="pictures a query (default: %(default)s)")
    encoders = parser.add_mutually_exclusive_group()
    encoders.add_argument("--clip", metavar="NAME_OR_FILE",
                          help=f"the CLIP that compares (default: {SHIPPED}, which has seen drawn pictures only)")
    encoders.add_argument("--checkpoint", metavar="DIR",
                          help="a dual encoder's folder instead (python -m helpers.train dual-encoder)")
    parser.add_argument("--html", default="search.html", metavar="FILE", help="the page to write (default: %(default)s)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
