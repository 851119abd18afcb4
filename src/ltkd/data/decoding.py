"""One image file to pixels: JPEG, PNG, WebP, BMP and TIFF as uint8 [C, size, size]."""

import functools
import io
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # whatever their case
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF"]
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class BadImage(ValueError):
    """A file that is missing, empty, cut off, damaged or no image of a known kind; the message is a short reason."""


def decode(
    path: str | Path, *, channels: int, size: int, shorter: int | None = None, crop: tuple[int, float] | None = None
) -> np.ndarray:
    """The picture as uint8 [channels, size, size]. Raises BadImage.

    Turned as its EXIF orientation says; grey, palette, transparent and CMYK pictures become RGB (or grey, for one
    channel) as Pillow converts them, which drops transparency, as torchvision's ImageFolder does. Of 16 bits the upper
    eight are kept, as Pillow does with colour. A picture of `size` pixels a side stays as it is; any other is scaled on
    the shorter side (bilinear, antialiased), to `size` or to `shorter`, and cut at the centre, equal to torchvision's
    Resize and CenterCrop of a PIL image.
    crop: (seed, smallest share of the area) of a random resized crop in place of that.
    """
    from PIL import Image

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise BadImage("no regular file")
        content = Path(path).read_bytes()
        pixels = _plain_jpeg(content, channels)
        if crop is not None:
            image = _picture(content, channels) if pixels is None else Image.fromarray(pixels)
            pixels = resized_crop(image, size=size, seed=crop[0], smallest=crop[1])
        elif pixels is None or pixels.shape[:2] != (size, size):
            image = _picture(content, channels) if pixels is None else Image.fromarray(pixels)
            pixels = np.asarray(image if image.size == (size, size) else _fit(image, shorter or size, size))
    except FileNotFoundError as error:
        raise BadImage("no such file") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage("no image of a known format" if content else "empty file") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from error
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _plain_jpeg(content: bytes, channels: int) -> np.ndarray | None:
    """uint8 [H, W, 3] by torchvision's decoder, which gives Pillow's pixels in less time (docs/speed.md).

    None for all that needs Pillow: other formats, metadata that may have an orientation, other colours, a file that
    does not end as it should, a size that Pillow refuses. Grey by Pillow's conversion of colour is another grey.
    """
    if channels != 3 or content[:3] != b"\xff\xd8\xff" or content[-2:] != b"\xff\xd9" or b"Exif\0\0" in content[:65536]:
        return None
    import torch
    from PIL import Image

    if _jpeg_pixels(content) > Image.MAX_IMAGE_PIXELS:
        return None
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:  # announced for a later torchvision
        return None
    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except RuntimeError:
        return None  # Pillow says what is wrong
    if len(pixels) == 1:
        pixels = pixels.expand(3, -1, -1)
    return pixels.permute(1, 2, 0).contiguous().numpy() if len(pixels) == 3 else None


def _jpeg_pixels(content: bytes) -> float:
    """Height times width as the file's frame header says; infinite where there is none."""
    place = 2
    while content[place : place + 1] == b"\xff":
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # those are tables
            return int.from_bytes(content[place + 5 : place + 7]) * int.from_bytes(content[place + 7 : place + 9])
        place += 2 + length
    return math.inf


def _picture(content: bytes, channels: int) -> "Image.Image":
    """By Pillow, in RGB or grey, the right way up."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        image = _eight_bits(ImageOps.exif_transpose(opened))
        return image.convert("RGB" if channels == 3 else "L")


def resized_crop(image: "Image.Image", *, size: int, seed: int, smallest: float) -> np.ndarray:
    """torchvision's RandomResizedCrop of the picture, drawn from `seed`: uint8 [size, size] or [size, size, 3]."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the CUDA generators too
        return np.asarray(_random_resized_crop(size, smallest)(image))


@functools.cache  # making it is about an eighth of the time of an image of 64 pixels
def _random_resized_crop(size: int, smallest: float):
    from torchvision.transforms import v2  # takes a while to import

    return v2.RandomResizedCrop(size, scale=(smallest, 1.0), antialias=True)


def _eight_bits(image):
    """Pillow clips 16-bit grey at 255 when it converts; its upper byte is wanted."""
    from PIL import Image

    if image.mode in _SIXTEEN_BITS:
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise BadImage("32-bit pixels; save it with 8 or 16 bits")
        return Image.fromarray((pixels >> 8).astype(np.uint8))
    if image.mode == "F":
        raise BadImage("floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    return image


def _fit(image: "Image.Image", shorter: int, size: int) -> "Image.Image":
    from PIL import Image

    least = min(image.size)
    width, height = (shorter if side == least else int(shorter * side / least) for side in image.size)
    if width * height > Image.MAX_IMAGE_PIXELS:
        raise BadImage(f"{image.width} x {image.height} pixels: too long for its width")
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
