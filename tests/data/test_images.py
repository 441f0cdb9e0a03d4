"""Decoding and scaling of pictures, good and bad."""

import io
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
    with pytest.raises(ValueError, match="floating-point"):
        load_image(Image.new("F", (2, 2)))


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
