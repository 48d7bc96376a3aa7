"""Images of a folder that are not read: of formats without a decoder here, or with the ending of something else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..errors import printable
from .image_files import ARRAYS, SUFFIXES
from .paths import list_files

_UNREAD = (
    ".heic .heif .hif .avif .jxl .jxr .j2k .j2c .jpc .jpx .jpf .dib .pnm .pam .pfm .tga .psd .exr .dcm .dicom .dng "
    ".cr2 .cr3 .nef .nrw .arw .orf .rw2 .raf .pef .srw"
)
_ENDINGS = frozenset(_UNREAD.split())
# How files of images begin.
_STARTS = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cjP  ",
    b"8BPS",
)
_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif")
# Tables, annotations and overviews, which lie beside images by the thousand.
_OTHERS = (".csv", ".tsv", ".txt", ".json", ".xml", ".ovr")


def sentence(root: Path, follow_links: bool = False) -> str:
    """How many images below a folder are not read, by their endings; "" where there are none."""
    names = list_files(root, ("",), follow_links=follow_links)
    counts = Counter(_ending(name) for name in names if _is_unread(root / name))
    if not counts:
        return ""
    files = [
        f"{count} of {printable(ending)}" if ending else f"{count} without an ending"
        for ending, count in counts.items()
    ]
    return (
        f"{counts.total()} files are images that are not read: {', '.join(files)}; save them as .png to have them read"
    )


def _is_unread(path: Path) -> bool:
    ending = _ending(path.name)
    if ending in (*SUFFIXES, *ARRAYS, *_OTHERS):
        return False
    return ending in _ENDINGS or _begins_as_image(path)


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False  # a folder that is one thing, or a link to nothing
    return (
        head.startswith(_STARTS)
        or (head[:4] + head[8:] == b"RIFFWEBP")
        or (head[4:8] == b"ftyp" and head[8:] in _BRANDS)
    )


def _ending(name: str) -> str:
    return Path(name).suffix.lower()
