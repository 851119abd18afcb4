"""One image file to pixels: JPEG, PNG, WebP, BMP and TIFF of any colour mode as uint8 [C, size, size]."""

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


def decode(path: str | Path, *, channels: int, size: int) -> np.ndarray:
    """The picture as uint8 [channels, size, size]. Raises BadImage.

    Turned as its EXIF orientation says; grey, palette, transparent and CMYK pictures become RGB (or grey, for one
    channel) as Pillow converts them, which drops transparency, as torchvision's ImageFolder does. Of 16 bits the upper
    eight are kept, as Pillow does with colour. Another size is scaled on the shorter side (bilinear, antialiased) and
    cut at the centre, equal to torchvision's Resize and CenterCrop of a PIL image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as opened:
            image = _eight_bits(ImageOps.exif_transpose(opened))
            image = image.convert("RGB" if channels == 3 else "L")
        if image.size != (size, size):
            image = _fit(image, size)
    except FileNotFoundError as error:
        raise BadImage("no such file") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage("empty file" if Path(path).stat().st_size == 0 else "no image of a known format") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from error
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def resized_crop(image: "Image.Image", *, size: int, seed: int, smallest: float) -> np.ndarray:
    """torchvision's RandomResizedCrop of the picture, drawn from `seed`: uint8 [size, size] or [size, size, 3]."""
    import torch
    from torchvision.transforms import v2  # takes a while to import

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the CUDA generators too
        return np.asarray(v2.RandomResizedCrop(size, scale=(smallest, 1.0), antialias=True)(image))


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


def _fit(image, size: int):
    from PIL import Image

    width, height = image.size
    shorter = min(width, height)
    width, height = (size if side == shorter else int(size * side / shorter) for side in (width, height))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
