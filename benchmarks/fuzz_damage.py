"""Ways in which files are damaged: what a disk, a transfer, an editor or a stranger does to them.

A damage takes the file's bytes, a source of chance and another file of the same kind, and gives the damaged bytes.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Damage = Callable[[bytes, random.Random, bytes], bytes]

# Whole numbers at the ends of what fields of 1 to 8 bytes hold.
_EXTREME_FIELDS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\0\0\0\1")
_EXTREME_NUMBERS = (
    "0", "-1", "1", "nan", "inf", "-inf", "1e308", "-1e308", "1e-308", "1e400", "99999999999", "9" * 20, "9" * 400,
    "1_0", "0x10", "٣", "1,5", "",
)  # fmt: skip
_ODD_TEXTS = (
    "", " ", "null", "None", "true", "\u202e", "\x1b[31m", "=1+1", "../../x", "/etc/hostname", "\x00", "\n", '"', "'",
    "[", "{", "]", "(" * 3_000, "x" * 100_000, "é", "\ud7ff", "😀", "#", ";", "nan", "%s%n", "0", "[[[[",
)  # fmt: skip
# A value of each type that JSON has.
_JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e308, 10**20, float("nan"), "", "x", "../x", [], {}, [1], {"x": 1}, [[]], "Clip(", 0.5,
)  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"


def damaged(content: bytes, chance: random.Random, other: bytes) -> tuple[str, bytes]:
    """The name of the damage, and the damaged bytes."""
    inner = _INSIDE.get(_container(content))
    if inner is not None and chance.random() < 0.6:
        return inner[0], inner[1](content, chance, other)
    ways = {**_OF_BYTES, **(_OF_TEXT if _is_text(content) else {}), **(_OF_JSON if _is_json(content) else {})}
    name = chance.choice(sorted(ways))
    return name, ways[name](content, chance, other)


def flipped(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """Some bytes are others, mostly near the start, where headers are."""
    changed = bytearray(content)
    within = min(len(changed), chance.choice([64, 512, len(changed)]) or 1)
    for _ in range(chance.choice([1, 1, 2, 4, 16])) if changed else ():
        changed[chance.randrange(within)] = chance.randrange(256)
    return bytes(changed)


def truncated(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """The end is missing."""
    return content[: chance.randrange(max(1, len(content)))]


def spliced(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """The start of one file and the rest of another."""
    return content[: chance.randrange(len(content) + 1)] + other[chance.randrange(len(other) + 1) :]


def cut_out(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A part in the middle is missing."""
    start = chance.randrange(len(content) + 1)
    return content[:start] + content[start + chance.choice([1, 4, 100, 512]) :]


def zeroed(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A part was never written."""
    start, length = chance.randrange(len(content) + 1), chance.choice([4, 64, 512, len(content)])
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def doubled(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A part, or all of it, is there twice."""
    start = chance.randrange(len(content) + 1)
    end = chance.randrange(start, len(content) + 1)
    return chance.choice([content + content, content[:end] + content[start:]])


def absurd_field(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A size or an offset of the header is at an end of its range."""
    place = 2 * chance.randrange(max(1, min(len(content), 512) // 2))
    field = chance.choice(_EXTREME_FIELDS)[: chance.choice([1, 2, 4, 4])]
    return content[:place] + field + content[place + len(field) :]


def garbage(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """Chance alone, or behind the first bytes."""
    return content[: chance.choice([0, 4, 16, 64])] + chance.randbytes(chance.choice([1, 64, 2_000]))


def empty(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """Nothing."""
    return b""


_OF_BYTES: dict[str, Damage] = {
    each.__name__: each
    for each in (flipped, truncated, spliced, cut_out, zeroed, doubled, absurd_field, garbage, empty)
}


def extreme_number(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A number is one at the end of its range, or none."""
    return _replaced(content, rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", chance, _EXTREME_NUMBERS)


def odd_text(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A word is another text."""
    return _replaced(content, rb"[A-Za-z_]\w*", chance, _ODD_TEXTS)


def odd_mark(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A mark between words is another, or missing."""
    return _replaced(content, rb"[^\w\s]", chance, ("", ",", ";", '"', "'", "{", "}", "[", "]", "=", ":", "\t", "\n"))


def lines_mixed(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """Lines are missing or in another order."""
    lines = content.splitlines(keepends=True)
    return b"".join(chance.sample(lines, chance.randint(0, len(lines))))


_OF_TEXT: dict[str, Damage] = {each.__name__: each for each in (extreme_number, odd_text, odd_mark, lines_mixed)}


def odd_value(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A value is one of another type, or its name is missing."""
    return json.dumps(odd_json(json.loads(content), chance)).encode()


def nested(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """Too deep to read."""
    return b"[" * 100_000 if chance.random() < 0.5 else b'{"a":' * 2_000 + b"1" + b"}" * 2_000


_OF_JSON: dict[str, Damage] = {each.__name__: each for each in (odd_value, nested)}


def odd_json(value: Any, chance: random.Random) -> Any:
    """The same with one value, at any depth, of another type."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(sorted(value))
        if chance.random() < 0.1:
            return {key: each for key, each in value.items() if key != name}
        return {**value, name: odd_json(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], odd_json(value[place], chance), *value[place + 1 :]]
    return chance.choice(_JSON_VALUES)


def png_chunk(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """The data of a chunk of a PNG are damaged, and its check sum fits again."""
    chunks, place = [], len(_PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    which = chance.randrange(len(chunks) or 1)
    parts = [
        (kind, _OF_BYTES[chance.choice(sorted(_OF_BYTES))](data, chance, other) if place == which else data)
        for place, (kind, data) in enumerate(chunks)
    ]
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def zip_member(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A file in a zip archive (npz, xlsx) is damaged, and its check sum fits again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(sorted(members))
    members[name] = damaged(members[name], chance, members[chance.choice(sorted(members))])[1]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return packed.getvalue()


def tensors_header(content: bytes, chance: random.Random, other: bytes) -> bytes:
    """A value in the header of a safetensors file is another, and the header is as long as it says."""
    (length,) = struct.unpack("<Q", content[:8])
    head = json.dumps(odd_json(json.loads(content[8 : 8 + length]), chance)).encode()
    return struct.pack("<Q", len(head)) + head + content[8 + length :]


_INSIDE: dict[str, tuple[str, Damage]] = {
    "png": ("png_chunk", png_chunk),
    "zip": ("zip_member", zip_member),
    "safetensors": ("tensors_header", tensors_header),
}


def _container(content: bytes) -> str:
    if content.startswith(_PNG):
        return "png"
    if content.startswith(b"PK\3\4"):
        return "zip"
    return "safetensors" if content[8:10] == b'{"' and content[5:8] == b"\0\0\0" else ""


def _is_text(content: bytes) -> bool:
    try:
        return content.decode("utf-8").isprintable() or (b"\n" in content[:4_000] and b"\0" not in content)
    except UnicodeDecodeError:
        return False


def _is_json(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _replaced(content: bytes, pattern: bytes, chance: random.Random, texts: tuple[str, ...]) -> bytes:
    """Up to 3 of the pattern's matches are one of the texts."""
    for _ in range(chance.choice([1, 1, 3])):
        matches = list(re.finditer(pattern, content))
        if matches:
            start, end = chance.choice(matches).span()
            content = content[:start] + chance.choice(texts).encode() + content[end:]
    return content
