"""Pictures in requests: what is read, and everything that is not."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from serve.errors import ApiError
from serve.image_input import read_picture


def png(color: str = "red", size: tuple[int, int] = (3, 2)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "png")
    return buffer.getvalue()


ENCODED = base64.b64encode(png()).decode()


@pytest.mark.parametrize("url", [f"data:image/png;base64,{ENCODED}", f"data:;base64,{ENCODED}", ENCODED])
def test_data_urls_and_bare_base64(url):
    image = read_picture(url, 100, None)
    assert image.mode == "RGB" and image.size == (3, 2) and np.asarray(image).tolist() == [[[255, 0, 0]] * 3] * 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/a.png", "fetches nothing"),
        ("https://example.org/a.png", "fetches nothing"),
        ("ftp://example.org/a.png", "fetches nothing"),
        ("file:///etc/passwd", "not allowed"),
        ("data:image/png,plain", "must be data:image/TYPE;base64,DATA"),
        ("data:image/png;base64", "must be data:image/TYPE;base64,DATA"),
        ("data:image/png;base64,%%%", "base64 is damaged"),
        (f"data:image/png;base64,{ENCODED[:40]}", "cannot be read"),
        ("", "cannot be read as an image"),
        ("/etc/passwd", "cannot be read|base64 is damaged"),
        ("ü" * 50, "base64 is damaged"),
    ],
)
def test_what_is_no_picture_is_refused(url, said):
    with pytest.raises(ApiError, match=said) as refused:
        read_picture(url, 100, None)
    assert refused.value.status == 400 and refused.value.param == "messages"


def test_a_picture_too_large_is_refused_before_it_is_decoded():
    with pytest.raises(ApiError, match="more than the limit of 100"):
        read_picture(base64.b64encode(png(size=(11, 10))).decode(), 100, None)


def test_files_of_one_folder_only(tmp_path):
    folder, outside = tmp_path / "pictures", tmp_path / "secret.png"
    (folder / "more").mkdir(parents=True)
    outside.write_bytes(png())
    (folder / "more" / "a b.png").write_bytes(png())
    (folder / "link.png").symlink_to(outside)
    assert read_picture(f"file://{folder}/more/a%20b.png", 100, folder).size == (3, 2)
    for path in (outside, folder / "link.png", folder / ".." / "secret.png", folder, folder / "none.png"):
        with pytest.raises(ApiError, match="no such file in the server's folder"):
            read_picture(f"file://{path}", 100, folder)
