"""Every kind of picture file arrives upright, in RGB and in the right colours; every bad one is named."""

import io

import numpy as np
import pytest
from PIL import Image

from helpers.data.images import EXTENSIONS, find_images, open_image
from helpers.errors import InputError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def near(pixel, wanted, tolerance=6):
    return max(abs(a - b) for a, b in zip(pixel, wanted, strict=True)) <= tolerance


def noise(size=(64, 48)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("extension", sorted(EXTENSIONS))
def test_every_listed_extension_is_read(tmp_path, extension):
    path = tmp_path / f"red{extension}"
    Image.new("RGB", (20, 10), RED).save(path)
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert near(image.getpixel((5, 5)), RED)


def test_path_text_open_file_and_picture_give_the_same(tmp_path):
    path = tmp_path / "noise.png"
    noise().save(path)
    wanted = noise().tobytes()
    with path.open("rb") as file:
        assert open_image(file).tobytes() == wanted
    assert open_image(str(path)).tobytes() == open_image(io.BytesIO(path.read_bytes())).tobytes() == wanted
    original = noise()
    copy = open_image(original)
    assert copy.tobytes() == wanted and copy is not original


def test_greyscale_and_one_bit(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    assert open_image(tmp_path / "grey.png").getpixel((0, 0)) == (77, 77, 77)
    Image.new("1", (4, 4), 1).save(tmp_path / "bit.png")
    assert open_image(tmp_path / "bit.png").getpixel((0, 0)) == WHITE


def test_palette_with_transparency_lies_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=1)
    opened = open_image(tmp_path / "palette.png")
    assert opened.getpixel((0, 0)) == RED and opened.getpixel((1, 0)) == WHITE


@pytest.mark.parametrize(
    ("mode", "clear", "half", "wanted_half"),
    [("RGBA", (255, 0, 0, 0), (255, 0, 0, 128), (255, 127, 127)), ("LA", (0, 0), (0, 128), (127, 127, 127))],
)
def test_transparency_is_composited_on_white(tmp_path, mode, clear, half, wanted_half):
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), half)
    image.save(tmp_path / "alpha.png")
    opened = open_image(tmp_path / "alpha.png")
    assert opened.getpixel((0, 0)) == WHITE
    assert near(opened.getpixel((1, 0)), wanted_half, 1)


def test_colour_named_transparent_in_a_truecolour_file(tmp_path):
    Image.new("RGB", (2, 2), BLUE).save(tmp_path / "trns.png", transparency=BLUE)
    assert open_image(tmp_path / "trns.png").getpixel((0, 0)) == WHITE


def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert near(open_image(tmp_path / "cmyk.jpg").getpixel((8, 8)), RED)


@pytest.mark.parametrize("extension", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, extension):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    Image.fromarray(ramp).save(tmp_path / f"ramp{extension}")
    opened = np.asarray(open_image(tmp_path / f"ramp{extension}"))[0, :, 0]
    assert np.abs(opened.astype(int) - np.arange(256)).max() <= 1


def test_float_pictures_of_both_ranges():
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert [open_image(unit).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]
    wide = Image.fromarray(np.array([[0.0, 127.0, 255.0]], dtype=np.float32))
    assert [open_image(wide).getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_cameras_rotation_is_obeyed(tmp_path):
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (0, 0, 20, 20))  # the left half; "rotate 90 clockwise to view" makes it the top half
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    opened = open_image(tmp_path / "turned.jpg")
    assert opened.size == (20, 40)
    assert near(opened.getpixel((10, 5)), BLUE) and near(opened.getpixel((10, 35)), RED)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (BLUE, RED)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert near(open_image(tmp_path / "film.gif").getpixel((4, 4)), BLUE)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".gif", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_file_is_named(tmp_path, extension, share):
    path = tmp_path / f"cut{extension}"
    noise((200, 200)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=f"cut{extension}.*(truncated|not a picture)"):
        open_image(path)


def test_a_lazily_opened_picture_is_checked_too(tmp_path):
    noise((200, 200)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:3000])
    with Image.open(tmp_path / "cut.jpg") as lazy, pytest.raises(InputError, match=r"cut\.jpg.*truncated"):
        open_image(lazy)


def test_missing_empty_text_and_folder_are_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name, why in {
        "missing.jpg": "no such file",
        "empty.jpg": "is empty",
        "text.jpg": "not a picture",
        "photo.heic": "HEIC",
        ".": "is a folder",
    }.items():
        with pytest.raises(InputError, match=why) as caught:
            open_image(tmp_path / name)
        assert (tmp_path / name).name in str(caught.value)
    with pytest.raises(InputError, match="is empty"):
        open_image(io.BytesIO())
    with pytest.raises(InputError, match="without pixels"):
        open_image(Image.new("RGB", (0, 5)))


def test_decompression_bomb_is_named(tmp_path, monkeypatch):
    Image.new("1", (300, 300)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"bomb\.png.*2,000 pixels"):
        open_image(tmp_path / "bomb.png")


def test_find_images_sorts_and_passes_over_the_rest(tmp_path):
    for name in ("b.JPG", "a.png", "c.webp", "._a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.JPG", "c.webp"]


def test_find_images_in_a_missing_or_empty_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*no such folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no picture"):
        find_images(tmp_path)
