"""Every kind of image file becomes the same uint8 array, and a damaged one a short reason."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import functional

from ltkd.data.decoding import BadImage, decode
from tests.data.pictures import pixels


def colour(path, size=8):
    return decode(path, channels=3, size=size)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "TIFF", "webp", "PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels(0)).save(path, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(colour(path), pixels(0).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr"])
def test_colour_modes_are_what_pillow_makes_of_them(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "PA") else "a.png")
    image = Image.fromarray(pixels(1)).convert(mode if mode != "PA" else "P")
    image.save(path)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
    assert np.array_equal(colour(path), expected.transpose(2, 0, 1))


def test_cmyk_and_grey_jpegs(tmp_path):
    for mode in ("CMYK", "L"):
        path = tmp_path / f"{mode}.jpg"
        image = Image.new("RGB", (8, 8), (200, 100, 50)).convert(mode)
        image.save(path, quality=100)
        expected = np.asarray(image.convert("RGB")).astype(int)[0, 0]
        assert np.abs(colour(path).transpose(1, 2, 0).astype(int) - expected).max() <= 4


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_keep_their_upper_byte(tmp_path, ending):
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(grey).save(tmp_path / f"a.{ending}")
    assert np.array_equal(colour(tmp_path / f"a.{ending}"), np.broadcast_to(grey >> 8, (3, 8, 8)))


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(pixels(2)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(colour(tmp_path / "a.png"), np.rot90(pixels(2), -1).transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(20, 13), (13, 20), (5, 9), (16, 16)])
def test_another_size_is_scaled_and_cut_as_torchvision_does(tmp_path, shape):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    picture.save(tmp_path / "a.png")
    expected = functional.center_crop(functional.resize(picture, 8), [8, 8])
    assert np.array_equal(colour(tmp_path / "a.png"), np.asarray(expected).transpose(2, 0, 1))


def test_one_channel(tmp_path):
    Image.fromarray(pixels(3)).save(tmp_path / "a.png")
    grey = np.asarray(Image.fromarray(pixels(3)).convert("L"))
    assert np.array_equal(decode(tmp_path / "a.png", channels=1, size=8), grey[None])


def test_damaged_files_have_a_reason(tmp_path):
    whole = tmp_path / "a.jpg"
    Image.fromarray(pixels(4, 64)).save(whole)
    cut, empty, text, deep = (tmp_path / name for name in ("cut.jpg", "empty.png", "text.png", "deep.tif"))
    cut.write_bytes(whole.read_bytes()[:-300])
    empty.touch()
    text.write_text("no picture")
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(deep)
    reasons = {cut: "truncated", empty: "empty file", text: "no image", deep: "floating-point"}
    for path, reason in (reasons | {tmp_path / "none.png": "no such file"}).items():
        with pytest.raises(BadImage, match=reason):
            colour(path)
