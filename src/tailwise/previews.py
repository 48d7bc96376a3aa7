"""Small pictures, or lines of text, of the training units that a report shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
import torch

from . import report
from .errors import InputError
from .problem import Data, Source

_SIDE = 96
_FEATURES = 8


def of_units(source: Source, data: Data, table: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Pictures, or the features as text, of the units that the report shows."""
    return of_named(source, data, report.units_to_show(table))


def of_named(source: Source, data: Data, shown: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Pictures, or the features as text, of the units of these names."""
    place = {name: i for i, name in enumerate(data.names)}
    pictures, texts = {}, {}
    for name in shown:
        if hasattr(source, "preview"):
            with suppress(InputError):  # a file that went away since; the report can do without its picture
                pictures[name] = _thumbnail(source.preview(name).permute(1, 2, 0).numpy())
        elif len(data.unit_shape) == 3 and data.unit_shape[0] in (1, 3):
            pictures[name] = _thumbnail(data.read(torch.tensor([place[name]]))[0].permute(1, 2, 0).numpy())
        elif len(data.unit_shape) == 1 and data.features:
            values = data.read(torch.tensor([place[name]]))[0].tolist()
            named = list(zip(data.features, values, strict=True))[:_FEATURES]
            texts[name] = ", ".join(f"{feature} {value:.4g}" for feature, value in named)
    return pictures, texts


def _thumbnail(picture: np.ndarray) -> str:
    """A picture [height, width, 1 or 3] of values 0 to 1 as a small JPEG inside a URI."""
    from PIL import Image

    pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((_SIDE, _SIDE))
    return data_uri(np.asarray(image))


def data_uri(picture: np.ndarray) -> str:
    """A picture [height, width] or [height, width, 3] of bytes as a JPEG inside a URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
