"""Decoding and scaling of pictures, good and bad."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import ImageTransform, load_image, to_pil


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def gradient(width: int = 8, height: int = 6) -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 9, y * 11, x * y], axis=-1).astype(np.uint8))


def test_path_bytes_and_picture_give_the_same(tmp_path: Path):
    image = gradient()
    (tmp_path / "a.png").write_bytes(encoded(image))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), encoded(image), image):
        assert load_image(source).tobytes() == image.tobytes()


def test_alpha_is_composited_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    left, right = pixels(load_image(encoded(image)))
    assert left == (255, 255, 255)
    assert right == (255, 127, 127)


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 10, 20, 30])
    image.putpixel((1, 0), 1)
    assert pixels(load_image(encoded(image, transparency=0))) == [(255, 255, 255), (10, 20, 30)]


def test_sixteen_bit_grey_keeps_its_brightness():
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    rgb = np.asarray(load_image(encoded(Image.fromarray(values))))
    assert rgb[0, :, 0].tolist() == [0, 100, 255]
    assert (rgb[..., 0] == rgb[..., 2]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str):
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    white = load_image(encoded(Image.new("RGB", (4, 4), "white").convert(mode), kind))
    assert white.mode == "RGB" and min(pixels(white)) >= (254, 254, 254)


def test_cmyk_keeps_its_colours():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    for kind in ("JPEG", "TIFF"):
        red, green, blue = pixels(load_image(encoded(cmyk, kind)))[0]
        assert red > 250 and green < 5 and blue < 5


def sixteen_bit_png(channels: list[int], colour_type: int) -> bytes:
    """One pixel by hand: Pillow writes no 16-bit colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, colour_type, 0, 0, 0)
    row = b"\0" + struct.pack(f">{len(channels)}H", *channels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("channels", "colour_type", "expected"),
    [
        ([257 * 200, 257 * 100, 257 * 10], 2, (200, 100, 10)),
        ([257 * 200, 257 * 100, 257 * 10, 0], 6, (255, 255, 255)),  # transparent: white
        ([257 * 200, 65535], 4, (200, 200, 200)),  # grey with alpha
    ],
)
def test_sixteen_bit_colours(channels, colour_type, expected):
    assert pixels(load_image(sixteen_bit_png(channels, colour_type))) == [expected]


@pytest.mark.parametrize("value", [-1, 65536])
def test_pixels_of_unknown_range_are_refused(value: int):
    picture = encoded(Image.fromarray(np.full((2, 2), value, np.int32)), "TIFF")
    with pytest.raises(ValueError, match="32-bit pixels, whose range is not known"):
        load_image(picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_picture(orientation: int):
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    upright, exif = gradient(), Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turned[orientation]) if orientation in turned else upright
    assert load_image(encoded(stored, exif=exif)).tobytes() == upright.tobytes()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored picture needs a quarter turn clockwise
    image = Image.new("RGB", (16, 8), "black")
    image.paste("white", (0, 0, 8, 8))
    upright = load_image(encoded(image, "JPEG", quality=95, exif=exif))
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2))[0] > 200 and upright.getpixel((4, 13))[0] < 50


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    bomb = encoded(Image.new("1", (4000, 4000)))
    assert len(bomb) < 10_000
    with pytest.raises(ValueError, match="4000×4000 pixels, more than the limit"):
        load_image(bomb, max_pixels=1_000_000)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_twenty_thousand_by_twenty_thousand_is_refused_by_its_header(kind: str):
    picture = encoded(Image.new("L", (16, 16)), kind)
    at = picture.index(b"IHDR") + 4 if kind == "PNG" else picture.index(b"\xff\xc0") + 5
    size = struct.pack(">II" if kind == "PNG" else ">HH", 20_000, 20_000)
    picture = picture[:at] + size + picture[at + len(size) :]
    if kind == "PNG":  # whose header has a checksum
        end = at + 13
        picture = picture[:end] + struct.pack(">I", zlib.crc32(picture[at - 4 : end])) + picture[end + 4 :]
    with pytest.raises(ValueError, match=r"more than the limit of \d+ pixels"):
        load_image(picture)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_of_every_kind_are_refused(kind: str):
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    assert load_image(whole).size == (64, 64)
    with pytest.raises(ValueError, match="bytes of image data cannot be read as an image"):
        load_image(whole[: len(whole) // 2])


@pytest.mark.parametrize("keep", [0, 5, 60, -200])
def test_broken_files_raise_one_sentence(keep: int, tmp_path: Path):
    path = tmp_path / "broken.png"
    path.write_bytes(encoded(gradient(64, 64))[:keep])
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image"):
        load_image(path)


def test_missing_file_folder_and_float_pixels(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no image .*none\.png"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path)
    for value in (0, np.nan):
        picture = encoded(Image.fromarray(np.full((2, 2), value, np.float32)), "TIFF")
        with pytest.raises(ValueError, match="floating-point"):
            load_image(picture)
    with pytest.raises(ValueError, match="mode La, which cannot become RGB"):
        load_image(Image.new("LA", (2, 2)).convert("La"))


@pytest.mark.parametrize("crop", ["center", "squash", "pad"])
def test_transform_of_a_square_at_its_own_size_changes_nothing(crop):
    image = gradient(8, 8)
    pixel_values = ImageTransform(8, crop)(image)
    assert pixel_values.shape == (3, 8, 8) and pixel_values.dtype == torch.float32
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 * 2 - 1
    torch.testing.assert_close(pixel_values, expected)
    assert to_pil(pixel_values).tobytes() == image.tobytes()


def test_crops_see_different_parts():
    image = Image.new("RGB", (30, 10), "black")
    image.paste("red", (10, 0, 20, 10))
    red = {crop: (ImageTransform(10, crop)(image)[0] > 0).float().mean().item() for crop in ("center", "squash")}
    assert red["center"] == 1.0
    assert red["squash"] == pytest.approx(1 / 3, abs=0.11)
    padded = ImageTransform(12, "pad")(image)
    assert (padded[:, 0] == 1).all() and (padded[:, -1] == 1).all() and padded[1, 6, 6] == -1


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("crop", ["center", "squash", "pad"])
def test_extreme_proportions(size, crop):
    pixel_values = ImageTransform(16, crop)(Image.new("RGB", size, (255, 255, 255)))
    assert pixel_values.shape == (3, 16, 16) and pixel_values.min() == 1


def test_nan_becomes_no_picture():
    with pytest.raises(ValueError, match="holds NaN"):
        to_pil(torch.full((3, 2, 2), torch.nan))


def test_to_pil_clamps_and_rounds():
    pixel_values = torch.tensor([-5.0, 0.0, 5.0]).view(3, 1, 1)
    assert to_pil(pixel_values).getpixel((0, 0)) == (0, 128, 255)


def test_descriptions_tell_transforms_apart_and_mistakes_are_refused():
    made = [ImageTransform(16), ImageTransform(32), ImageTransform(16, "pad")]
    assert len({transform.describe() for transform in made}) == 3
    with pytest.raises(ValueError, match="crop must be one of center, squash, pad"):
        ImageTransform(16, "middle")
    with pytest.raises(ValueError, match="at least 1"):
        ImageTransform(0)
