"""Tables as text: encoding, separator and marks of numbers are taken from the file where it leaves no doubt."""

from __future__ import annotations

import codecs
import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import InputError
from .header import Layout, layout_of
from .numerals import MISSING, PLAIN, Marks, are_plain, as_numbers, is_numeral, marks_of, numeric_columns

if TYPE_CHECKING:
    import pandas as pd

# The layout of a table shows in its first rows, of so much text.
_SAMPLE_ROWS, _SAMPLE_CHARACTERS = 1_000, 4_000_000
_SEPARATORS = (",", ";", "\t", "|")
_SPELLED = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_COMMENTS = ("#", "%", "//")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_CHUNK = 1 << 20
# Texts that stand beside values can be longer than Python's own limit of a field.
csv.field_size_limit(1 << 27)


@dataclass(frozen=True)
class Writing:
    """How a text file is written, as far as the user says; None is found in the file.

    Attributes:
        sep: what separates fields: a character, or "tab" or "space".
        decimal, thousands: the decimal mark, and what stands between thousands.
        encoding: a name that Python knows, such as "utf-16" or "cp1252".
        marks: the decimal mark and what stands between thousands, as in ",.", of earlier files; they are taken where
            the numbers of a file can be read with them.
    """

    sep: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    marks: str = ""

    def __post_init__(self) -> None:
        for name in ("sep", "decimal", "thousands"):
            value = getattr(self, name)
            if value is None:
                continue
            value = _SPELLED.get(value, value) if isinstance(value, str) else value
            if not isinstance(value, str) or len(value) != 1 or value.isalnum() or value in '"\r\n':
                raise InputError(f"{name} must be one mark: got {value!r}", "such as ';' or ',', or 'tab' or 'space'")
            object.__setattr__(self, name, value)
        for one, other in (("sep", "decimal"), ("thousands", "decimal")):
            if getattr(self, one) is not None and getattr(self, one) == getattr(self, other):
                raise InputError(f"{one} and {other} cannot both be {getattr(self, one)!r}", "choose another of them")
        if len(self.marks) > 2 or any(mark.isalnum() for mark in self.marks):
            raise InputError(f"marks are one or two: got {self.marks!r}", "such as ',' or ',.'")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except (LookupError, TypeError, ValueError) as error:
                raise InputError(f"no encoding is called {self.encoding!r}", "such as utf-8, utf-16, cp1252") from error

    def usual(self, sep: str = "") -> Marks | None:
        """The marks of earlier files, unless the decimal mark is what separates fields here."""
        return Marks(*self.marks) if self.marks and self.marks[0] != sep else None


@dataclass(frozen=True)
class _Top:
    """What the first lines of a file tell.

    Attributes:
        commented: whether a line below the first begins as a comment does.
        first_line: the first line of values, counted from 0.
        columns: the values of the first rows by column.
    """

    encoding: str
    commented: bool
    sep: str
    layout: Layout
    first_line: int
    columns: dict[str, list[str]]

    def marks(self, writing: Writing, where: str) -> Marks:
        usual = writing.usual(self.sep)
        return marks_of(self.columns, writing.decimal, writing.thousands, where, usual, self.sep == ";")


def marks_in(path: Path, writing: Writing, wanted: Sequence[str] = ()) -> Marks:
    """The marks of the numbers in a text file; see `read_delimited`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever reads the file is told
        return _top_of(path, writing, wanted).marks(writing, str(path))


def read_delimited(path: Path, writing: Writing, wanted: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a text file, columns of numbers as numbers.

    Args:
        writing: how the file is written, as far as that is known.
        wanted: names of columns that are looked for; see `header.layout_of`.

    Raises:
        InputError: the file is no text or no table, or can be read in two ways.
    """
    top = _top_of(path, writing, wanted)
    marks = top.marks(writing, str(path))
    plain = marks == PLAIN and all(
        are_plain(texts) or as_numbers(texts, marks) is None for texts in top.columns.values()
    )
    with path.open(encoding=top.encoding, newline="") as file:
        for _ in range(top.first_line):
            file.readline()
        source = io.StringIO("".join(_without_comments(file, top.sep, top.layout.fields))) if top.commented else file
        frame = _parsed(source, path, top.sep, top.layout, texts=not plain)
    return frame if plain else numeric_columns(frame, marks, str(path))


def _top_of(path: Path, writing: Writing, wanted: Sequence[str]) -> _Top:
    encoding, commented = _encoding(path, writing.encoding)
    with path.open(encoding=encoding, newline="") as file:
        top = list(_top(file))
    skipped, sep, comment = _before_the_table(top)
    top = top[skipped:]
    sep = sep or writing.sep or _separator(top, path.suffix.lower() == ".tsv", writing)
    rows, ends = _records(top, sep)
    if not rows:
        raise InputError(f"{path} has no rows", "a table has a row of names and rows of values")
    titled = _titles(comment, rows, sep)
    if titled is not None:
        rows, ends = [titled, *rows], [0, *ends]
    layout = layout_of(rows, str(path), wanted)
    if twice := [name for place, name in enumerate(layout.names) if name in layout.names[:place]]:
        raise InputError(f"{path} has two columns called {twice[0]!r}", "rename one")
    values = rows[layout.first :]
    if not values:
        raise InputError(f"{path} has no rows", "below the names there is nothing")
    begin = 1 if layout.row_names else 0
    columns = {name: [row[begin + place] for row in values] for place, name in enumerate(layout.names)}
    first_line = skipped + (ends[layout.first - 1] if layout.first else 0)
    return _Top(encoding, commented, sep, layout, first_line, columns)


def _parsed(file: TextIO, path: Path, sep: str, layout: Layout, texts: bool) -> pd.DataFrame:
    """The values below the names, as pandas reads them, or all as texts."""
    import pandas as pd

    used = [*(["row"] if layout.row_names else []), *layout.names]
    try:
        with warnings.catch_warnings():
            # pandas cuts fields off a row that has too many, and only warns of it.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                file, sep=r"\s+" if sep == " " else sep, header=None, names=range(layout.fields), index_col=False,
                dtype=str if texts else None, low_memory=False, skipinitialspace=True,
            )  # fmt: skip
    except pd.errors.ParserWarning as error:
        raise InputError(f"{path}: a row has more fields than the header has names", "mend the row") from error
    frame = frame.iloc[:, : len(used)].set_axis(used, axis=1)
    return frame.set_index(frame.columns[0]).rename_axis(None) if layout.row_names else frame


def _encoding(path: Path, asked: str | None) -> tuple[str, bool]:
    """The file's encoding, and whether a line below its first begins as a comment does."""
    encoding = asked or _marked_encoding(path)
    for guess in (encoding,) if encoding else ("utf-8", "cp1252", "latin-1"):
        try:
            commented = _has_comments(path, guess)
        except (UnicodeError, LookupError) as error:
            if encoding:
                raise InputError(
                    f"{path} is not text in the encoding {encoding}: {error}", "say another by --encoding"
                ) from error
            continue
        if guess not in ("utf-8", encoding):
            warnings.warn(f"{path} is not UTF-8 and is read as {guess}; --encoding says another", stacklevel=2)
        return guess, commented
    raise InputError(f"{path} is not text", "say how it is encoded by --encoding")


def _marked_encoding(path: Path) -> str | None:
    """The encoding that a byte order mark says, or that the places of zero bytes leave no doubt of."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    if 0 not in head:
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > 0.4 * len(head) / 2 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    raise InputError(f"{path} is not text: it holds zero bytes", "is it another format than its name says?")


def _has_comments(path: Path, encoding: str) -> bool:
    """Whether any line but the first begins with a mark of comments.

    Raises:
        UnicodeError: the file is not of this encoding.
    """
    found, last = False, ""
    with path.open(encoding=encoding, newline="") as file:
        while chunk := file.read(_CHUNK):
            text = last + chunk
            found = found or any(f"\n{mark}" in text for mark in _COMMENTS)
            last = text[-2:]
    return found


def _top(file: TextIO) -> Iterator[str]:
    """The first lines of a file."""
    characters = 0
    for count, line in enumerate(file):
        characters += len(line)
        if count >= _SAMPLE_ROWS or (characters > _SAMPLE_CHARACTERS and count > 50):
            return
        yield line


def _before_the_table(top: list[str]) -> tuple[int, str | None, str]:
    """How many lines stand above the table, the separator that they say, and the last comment among them."""
    sep, comment = None, ""
    for count, line in enumerate(top):
        text = line.strip()
        if text.lower().startswith("sep=") and count == 0 and len(line.rstrip("\r\n")) == 5:
            sep = line[4]
        elif text.startswith(_COMMENTS):
            comment = text
        elif text:
            return count, sep, comment
    return len(top), sep, comment


def _separator(lines: list[str], tabs: bool, writing: Writing) -> str:
    """What separates the fields of most lines into the same number, most of them numbers."""
    if tabs and any("\t" in line for line in lines):
        return "\t"
    best, highest = ",", (0.0, 0.0, 0)
    candidates = [sep for sep in (*_SEPARATORS, " ") if sep not in (writing.decimal, writing.thousands)]
    for sep in candidates:
        rows = _records(lines[:200], sep)[0]
        counts = Counter(map(len, rows[1:] or rows))
        fields, often = counts.most_common(1)[0] if counts else (1, 0)
        if fields < 2 or (sep == " " and highest[2] > 1):
            continue
        usual = [row for row in rows[1:] or rows if len(row) == fields]
        numerals = sum(is_numeral(field) for row in usual for field in row) / (len(usual) * fields)
        if sep == " " and numerals < 0.5:
            continue
        rank = (round(often / sum(counts.values()), 1), round(numerals, 6), fields)
        if rank > highest:
            best, highest = sep, rank
    return best


def _records(lines: list[str], sep: str) -> tuple[list[list[str]], list[int]]:
    """The rows of these lines as fields, and the line after each."""
    if sep == " ":
        split = [(line.split(), number) for number, line in enumerate(lines, 1) if line.strip()]
        return [row for row, _ in split], [number for _, number in split]
    rows: list[list[str]] = []
    ends = []
    reader = csv.reader(lines, delimiter=sep, skipinitialspace=True)
    try:
        for row in reader:
            if row and not (row[0].startswith(_COMMENTS) and rows and len(row) != len(rows[-1])):
                rows.append(row)
                ends.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"a row cannot be read: {error}", "is it another format than its name says?") from error
    return rows, ends


def _titles(comment: str, rows: list[list[str]], sep: str) -> list[str] | None:
    """The names in the last comment above rows of numbers, as `numpy.savetxt` writes them."""
    names = _records([comment.lstrip("#%/ ")], sep)[0] if comment else []
    if not names or len(names[0]) != len(rows[0]) or any(is_numeral(name) for name in names[0]):
        return None
    return names[0] if all(is_numeral(field) or field.strip() in MISSING for field in rows[0]) else None


def _without_comments(file: Iterable[str], sep: str, fields: int) -> Iterator[str]:
    for line in file:
        if not line.startswith(_COMMENTS) or line.count(sep) == fields - 1:
            yield line
