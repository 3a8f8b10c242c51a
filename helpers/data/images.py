"""Any picture file a person may have, as the RGB picture they see when they open it."""

from __future__ import annotations

import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from helpers.environment import shown
from helpers.errors import InputError

EXTENSIONS = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# What Pillow's readers raise on damaged files, depending on the format.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def open_image(source: str | PathLike | BinaryIO | Image.Image) -> Image.Image:
    """Return `source` (a path, an open binary file or a PIL picture) as a new, upright PIL picture in RGB.

    Transparent pictures lie on white, 16-bit ones are scaled to 8 bits, animated ones give their first frame, and a
    camera's rotation mark is obeyed. Raises InputError, naming the file, where it is missing, empty, truncated, a
    decompression bomb, or not a picture.
    """
    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, name)
        with Image.open(source) as image:
            return _to_rgb(image, name)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: there is no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{name}: is a folder, not a picture") from error
    except PermissionError as error:
        raise InputError(f"{name}: may not be read (permissions)") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name}: {_why_not_a_picture(source, name)}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{name}: more than {limit:,} pixels, which is refused: make it smaller first") from error
    except _DAMAGE as error:
        raise InputError(f"{name}: truncated or damaged ({error}); copy or download it again") from error


def find_images(folder: str | PathLike, *, recursive: bool = False) -> list[Path]:
    """The pictures directly in `folder`, or also in the folders inside it, by file name extension, sorted by path.

    Hidden files and folders are passed over.

    Raises InputError where the folder is missing or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{shown(folder)}: there is no such folder")
    listed = (path for path in folder.glob("**/*" if recursive else "*") if path.suffix.lower() in EXTENSIONS)
    found = sorted(path for path in listed if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if not found:
        raise InputError(f"{shown(folder)}: no picture in this folder (looked for {', '.join(sorted(EXTENSIONS))})")
    return found


def _name(source: str | PathLike | BinaryIO | Image.Image) -> str:
    if isinstance(source, (str, PathLike)):
        return shown(source)
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or "the given picture"
    return str(getattr(source, "name", "the given file"))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise InputError(f"{name}: a picture without pixels ({image.width} x {image.height})")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")  # always a copy, also of a picture that is RGB already


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Scale grey values of an unknown range to 0..255: Pillow's own conversion clips them, which whitens the picture."""
    top = float(pixels.max())
    if pixels.dtype == np.uint16 or (pixels.dtype.kind == "i" and top > 255):
        scale = 255 / max(65535.0, top)
    elif pixels.dtype.kind == "f" and top <= 1:
        scale = 255.0
    else:
        scale = 255 / max(255.0, top)
    return (pixels.clip(0) * scale).round().astype(np.uint8)


def _why_not_a_picture(source: str | PathLike | BinaryIO, name: str) -> str:
    size = Path(source).stat().st_size if isinstance(source, (str, PathLike)) else source.seek(0, 2)
    if size == 0:
        return "the file is empty"
    if name.lower().endswith((".heic", ".heif")):
        return "HEIC photos cannot be read here: save it as JPEG"
    return "not a picture that can be read"
