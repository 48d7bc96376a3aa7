"""Features of images by a frozen backbone, computed once and kept on disk under a hash of what they depend on.

An entry is one image's features in a file of its own, named by the hash of the image's content, the backbone's weights
and the way of reading. Whatever changes one of these asks for another name, and a damaged entry does not match the
digest that it holds and is computed again. Entries may be deleted at any time. Small pictures for people are kept in
the same way, because decoding photos took half of a second fit.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from . import networks

# Features of more bytes than this stay on disk and are read when they are asked for.
IN_MEMORY_BYTES = 250_000_000
_DIGEST, _LONGEST_HEAD = 16, 200
_OFF = ("", "off", "0")
_Stamp: TypeAlias = tuple[int, int, int, int]
_instead: ContextVar[Path | None] = ContextVar("_instead", default=None)


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """While the block runs, what this thread computes is kept in this folder: what is seen once fills no cache."""
    token = _instead.set(folder)
    try:
        yield
    finally:
        _instead.reset(token)


def cache_folder() -> Path | None:
    """Where features are kept: TAILWISE_CACHE, or the platform's folder for caches; None where that says "off"."""
    if (instead := _instead.get()) is not None:
        return instead
    given = os.environ.get("TAILWISE_CACHE")
    if given is not None:
        return None if given.strip().lower() in _OFF else Path(os.path.expanduser(given)) / "features"
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "tailwise" / "features"


class Extractor:
    """One way of making features, and its cache.

    Args:
        backbone: its name.
        layers: blocks whose maps are joined; () gives the pooled features of the backbone's usual blocks.
        reading: what else the features depend on: how the image was decoded and resized.
        folder: where features are kept; None keeps nothing.
    """

    def __init__(self, backbone: str, layers: tuple[int, ...], reading: str, folder: Path | None) -> None:
        self.backbone, self.layers, self.folder = backbone, layers, folder
        margin = networks.margin_of(backbone, layers)
        beyond = f" with {margin} mirrored pixels" if margin else ""
        self.described = f"{networks.identity(backbone)} {layers}{beyond} {reading}".encode()
        self._make: Callable[[Tensor], Tensor] | None = None
        self._whole: dict[str, _Stamp] = {}  # entries that were checked

    def key(self, content: bytes) -> str:
        """The name of the features of an image whose file or pixels are `content`."""
        return _hash(content, self.described)

    def features(self, key: str, image: Callable[[], Tensor]) -> Tensor:
        """Features [d] or [d, h, w], from the cache or of `image()` [1 or 3, height, width] in 0..1; maps as they are
        kept, mostly in half precision."""
        axes = 3 if self.layers else 1

        def fits(kept: np.ndarray) -> bool:
            return kept.ndim == axes and kept.dtype.kind == "f" and kept.size > 0 and bool(np.isfinite(kept).all())

        return torch.from_numpy(_kept(self.folder, key, lambda: _small(self.compute(image())), fits, self._whole))

    def compute(self, image: Tensor) -> Tensor:
        """Features of an image, without the cache."""
        if self._make is None:
            self._make = networks.features(self.backbone, self.layers)
        return self._make(image[None])[0]


class FeatureFiles:
    """Features of image files, read from the cache when they are asked for: a Reader.

    A file that changes while it is being used is seen with the content that it had when it was first asked for as
    long as the cache holds it.
    """

    def __init__(self, files: Sequence[Path], extractor: Extractor, picture: Callable[[Path], Tensor]) -> None:
        self.files, self.extractor, self.picture = files, extractor, picture
        self.keys: list[str | None] = [None] * len(files)
        self.shape: tuple[int, ...] = (len(files), *self.one(0).shape)

    def one(self, place: int) -> Tensor:
        """Features of the image at `place`, as they are kept."""
        path = self.files[place]
        key = self.keys[place]
        if key is None:
            key = self.keys[place] = self.extractor.key(_content(path))
        return self.extractor.features(key, lambda: self.picture(path))

    def __getitem__(self, index: Tensor) -> Tensor:
        result = torch.empty(len(index), *self.shape[1:])
        for row, place in enumerate(index.tolist()):
            one = self.one(place)
            if one.shape != self.shape[1:]:
                raise InputError(
                    f"the features of {self.files[place]} are {list(one.shape)}, and {list(self.shape[1:])} of others",
                    f"somebody else wrote into the cache: delete the folder {self.extractor.folder}",
                )
            result[row] = one
        return result


def preview(path: Path, reading: str, picture: Callable[[], Tensor]) -> Tensor:
    """The small picture [3, height, width] in 0..1, to a byte, of an image file, from the cache or of `picture()`."""
    folder = cache_folder()
    if folder is None:
        return picture()
    key = _hash(_content(path), f"preview {reading}".encode())

    def fits(kept: np.ndarray) -> bool:
        return kept.ndim == 3 and kept.shape[0] == 3 and kept.size > 0 and kept.dtype == np.uint8

    kept = _kept(folder.with_name("previews"), key, lambda: (picture() * 255).round().byte().numpy(), fits)
    return torch.from_numpy(kept).float() / 255


def of_file(path: Path, reading: str, make: Callable[[], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The array of this shape that is made of a file, from the cache or of `make()`; `reading` says how it is made."""

    def fits(kept: np.ndarray) -> bool:
        return kept.shape == shape and kept.dtype.kind == "f" and bool(np.isfinite(kept).all())

    return _kept(cache_folder(), _hash(_content(path), reading.encode()), make, fits)


def of_images(images: Tensor, backbone: str, resize: Callable[[Tensor], Tensor]) -> Tensor:
    """Pooled features [n, d] of images [n, 1 or 3, height, width] in 0..1 that are at hand, after `resize`."""
    first = resize(images[:1])
    described = f"pixels {tuple(images.shape[1:])} to {tuple(first.shape[1:])}"
    extractor = Extractor(backbone, (), described, cache_folder())
    rows = []
    for image in images.split(1):
        key = extractor.key(image.contiguous().numpy().tobytes())
        rows.append(extractor.features(key, lambda image=image: resize(image)[0]))  # type: ignore[misc]
    return torch.stack(rows).float()


def _small(features: Tensor) -> np.ndarray:
    """Maps in half precision where their range allows it."""
    values = features.float().cpu().numpy()
    if values.ndim == 1 or np.abs(values).max() >= np.finfo(np.float16).max:
        return values
    return values.astype(np.float16)


def _content(path: Path) -> bytes:
    # A file that cannot be read is reported by the reader of pictures, which knows what to say.
    return path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else b""


def _hash(content: bytes, described: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGEST, key=hashlib.blake2b(described).digest()).hexdigest()


def _kept(
    folder: Path | None,
    key: str,
    make: Callable[[], np.ndarray],
    fits: Callable[[np.ndarray], bool],
    whole: dict[str, _Stamp] | None = None,
) -> np.ndarray:
    """The array of this name, from the folder or made and kept there; what does not fit is made again. What is `whole`
    was found to fit, and is not checked again as long as nobody writes to it."""
    if folder is None:
        return make()
    path = folder / key[:2] / key[2:]
    whole = {} if whole is None else whole
    stamp = _stamp(path)
    known = stamp is not None and whole.get(key) == stamp
    kept = None if stamp is None else _read(path, check=not known)
    if kept is None or not (known or fits(kept)):
        kept = make()
        _write(path, kept)
    elif stamp is not None:
        whole[key] = stamp
    return kept


def _stamp(path: Path) -> _Stamp | None:
    """What changes with a file's content; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if stat.S_ISREG(found.st_mode) else None


def _read(path: Path, check: bool) -> np.ndarray | None:
    """A kept array, or None where there is none or, if it is checked, where it is damaged."""
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError:
        return None
    digest, content = bytes(raw[:_DIGEST]), raw[_DIGEST:]
    if check and hashlib.blake2b(content.data, digest_size=_DIGEST).digest() != digest:
        return None
    try:
        head = bytes(content[:_LONGEST_HEAD]).partition(b"\n")[0]
        kind, *shape = head.decode("ascii").split()
        # Earlier versions left numbers at odd addresses: copied.
        values = np.require(content[len(head) + 1 :].view(kind), requirements="A")
        return values.reshape([int(side) for side in shape])
    except (ValueError, TypeError, SyntaxError, OverflowError):
        return None  # whoever can write here can also seal what is no array


def _write(path: Path, values: np.ndarray) -> None:
    """Keep an array, whole or not at all. A disk that takes none costs only time."""
    head = " ".join([values.dtype.str, *map(str, values.shape)]).encode()
    # Filled up, so that numbers lie at even addresses.
    content = head + b" " * (-(_DIGEST + len(head) + 1) % 16) + b"\n" + values.tobytes()
    beside = None
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, because another process may be writing the same entry.
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with open(handle, "wb") as file:
            file.write(hashlib.blake2b(content, digest_size=_DIGEST).digest() + content)
        os.replace(beside, path)
        return
    if beside is not None:
        with suppress(OSError):
            os.unlink(beside)
