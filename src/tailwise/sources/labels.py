"""Labels of any type: which of their values says normal."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

# Words, in small letters, that say normal whatever the column is called; beside them every other value is an anomaly.
_NORMAL = frozenset({
    "normal", "good", "ok", "okay", "pass", "passed", "passing", "healthy", "intact", "inlier", "benign", "conforming",
    "conform", "accept", "accepted", "faultless", "undamaged", "gut", "in order", "i.o.", "io", "no defect", "no fault",
    "defect-free", "defect free", "defectfree", "fault-free", "fault free", "faultfree", "not anomalous",
    "non-anomalous",
})  # fmt: skip
_ANOMALOUS = frozenset({
    "anomaly", "anomalous", "abnormal", "bad", "nok", "ng", "ko", "fail", "failed", "failing", "failure", "fault",
    "faulty", "defect", "defective", "outlier", "reject", "rejected", "scrap", "broken", "damaged", "malignant",
    "attack", "not ok", "no good", "n.i.o.", "nio",
})  # fmt: skip
_ANOMALIES = _ANOMALOUS | {"anomalies", "defects", "faults", "error", "errors"}
# Words that answer a question, which only the column's name asks.
_YES, _NO = frozenset(["yes", "y", "ja", "oui", "si", "sí"]), frozenset(["no", "n", "nein", "non"])
_TRUE, _FALSE = frozenset(["true", "1", "1.0"]), frozenset(["false", "0", "0.0"])
# Letters that say true and false only among such words: F beside P is a fail.
_TRUTH = _TRUE | _FALSE | {"t", "f"}
_TURNING = frozenset({"not", "no", "non", "without"})
_LISTED = 6
# Python itself refuses to read much longer ones.
_WHOLE = re.compile(r"-*\d{1,100}")


@dataclass(frozen=True, eq=False)
class Labels:
    """What labels say.

    Attributes:
        anomalous: [n] bool.
        normal: the values that were taken for normal.
        sentence: which values say normal and anomalous, and how many of each.
        doubt: why that may be the wrong way round; "" where nothing says so.
    """

    anomalous: np.ndarray
    normal: tuple[str, ...]
    sentence: str
    doubt: str


def read_labels(values: Any, name: str = "labels", normal: Sequence[int | str] = ()) -> Labels:
    """Which of the labels [n] are of anomalies.

    Args:
        values: numbers, of which 0 is normal; true (anomalous) and false; -1 and 1 with more of the one that is normal,
            which is 1 unless the name asks for anomalies; P and F, which are pass and fail; or words such as "good",
            "OK" and "pass".
        normal: the values that are normal, whatever they are; every other is an anomaly.

    Raises:
        InputError: a label is missing, or none of its values is known to say normal.
    """
    values = np.asarray(values)
    texts = [text_of(value) for value in values.tolist()]
    if "" in texts:
        missing = [row for row, text in enumerate(texts) if not text]
        raise InputError(f"{name}: row {missing[0]} has no label ({len(missing)} such rows)", "label it or drop it")
    names, place, counts = np.unique(np.array(texts, dtype=str), return_inverse=True, return_counts=True)
    count = dict(zip(names.tolist(), counts.tolist(), strict=True))
    chosen = _asked(normal, count) if len(normal) else _known(count, name)
    anomalous = ~np.isin(names, list(chosen))[place]
    bad = {value: number for value, number in count.items() if value not in chosen}
    good = {value: number for value, number in count.items() if value in chosen}
    sentence = f"labels {name!r}: normal is {_listed(good)}; anomalous is {_listed(bad) or 'none'}"
    doubt = "" if len(normal) else _doubt(good, bad, name)
    return Labels(anomalous, tuple(good), sentence, doubt)


def values_of(normal: str | Sequence[int | str]) -> tuple[int | str, ...]:
    """Values as they are, or as one text: 'pass, "ok, checked", 1' -> ("pass", "ok, checked", 1)."""
    if not isinstance(normal, str):
        return tuple(normal)
    return tuple(int(part) if _WHOLE.fullmatch(part) else part for part in parts_of(normal))


def parts_of(text: str) -> tuple[str, ...]:
    """What commas separate: 'pass, "ok, checked", 001' -> ("pass", "ok, checked", "001")."""
    parts = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(part.strip() for part in parts if part.strip())


def _asked(normal: Sequence[int | str], count: dict[str, int]) -> set[str]:
    asked = {text_of(value).casefold() for value in normal}
    return {value for value in count if value.casefold() in asked}


def _known(count: dict[str, int], name: str) -> set[str]:
    """The values that say normal."""
    words = {value: value.casefold() for value in count}
    plain = set(words.values())
    if normal := {value for value, word in words.items() if word in _NORMAL}:
        return normal
    asks = _asks_for(name)
    if plain == {"-1", "1"}:
        one, other = ("-1", "1") if asks == "anomaly" else ("1", "-1")
        if count[one] > count[other]:
            return {one}
    if plain <= _YES | _NO and asks:
        return {value for value, word in words.items() if word in (_YES if asks == "normal" else _NO)}
    if "p" in plain <= {"p", "f"} and asks != "anomaly":
        return {value for value, word in words.items() if word == "p"}
    if "-1" not in plain and (false := _false(plain, asks)):
        return {value for value, word in words.items() if word in false}
    if plain <= _ANOMALOUS | _TRUE | {"t"}:
        return set()
    raise InputError(
        f"{name}: none of its values is known to say normal: {_listed(count)}",
        f"name the value that is normal, as in --normal {max(count, key=lambda value: count[value])!r}",
    )


def _false(words: set[str], asks: str) -> set[str]:
    """The words that say false. An F does so among truth values, and alone only where the column's name asks."""
    letter = {"f"} if words <= _TRUTH and (asks or words != {"f"}) else set()
    return words & (_FALSE | letter)


def _asks_for(name: str) -> str:
    """ "normal" or "anomaly", for what a column's name asks whether a sample is it; "" where it asks for neither."""
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name))]
    for asked, opposite, known in (("normal", "anomaly", _NORMAL), ("anomaly", "normal", _ANOMALIES)):
        place = next((place for place, word in enumerate(words) if word in known), None)
        if place is None:
            continue
        turns = sum(word in _TURNING for word in words[:place])
        turns += asked == "anomaly" and "free" in words  # defect-free, or free of defects
        return opposite if turns % 2 else asked
    return ""


def _doubt(good: dict[str, int], bad: dict[str, int], name: str) -> str:
    anomalies, normals = sum(bad.values()), sum(good.values())
    turn = f"if it is the other way round, say --normal {next(iter(bad), '')!r}"
    if anomalies > normals:
        return f"labels {name!r} call {anomalies} samples anomalous and only {normals} ({_listed(good)}) normal: {turn}"
    if bad and {value.casefold() for value in good} <= _FALSE | {"f"} and _asks_for(name) == "normal":
        return f"labels {name!r} are read as normal where they are {_listed(good)}, against the column's name: {turn}"
    return ""


def are_classes(values: Any) -> bool:
    """Whether values [n] name kinds rather than anomalies: there are more than two, no word among them says normal, and
    0, which often does, is not most of them.

    Examples:
        >>> are_classes([0, 1, 2, 1, 2, 0]), are_classes([0, 0, 0, 0, 1, 2]), are_classes(["good", "dent", "scratch"])
        (True, False, False)
    """
    count = Counter(map(text_of, np.asarray(values).tolist()))
    words = {value.casefold() for value in count}
    if len(count) <= 2 or words & (_NORMAL | _ANOMALOUS):
        return False
    return 2 * sum(count[value] for value in count if value.casefold() in _FALSE) <= count.total()


def text_of(value: Any) -> str:
    """A value as text: whole numbers without a point, "" where it is missing."""
    if value is None or value != value or str(value) in ("<NA>", "NaT"):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text[:-2] if text.removesuffix(".0").lstrip("-").isdecimal() and text.endswith(".0") else text


def _listed(count: dict[str, int]) -> str:
    shown = [f"{value!r} ({number})" for value, number in sorted(count.items(), key=lambda item: -item[1])]
    return ", ".join(shown[:_LISTED]) + (f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else "")


# Names of columns that hold labels, beside those that ask whether a sample is normal.
_LABEL_NAMES = frozenset({"class", "classes", "klasse", "label", "labels", "target", "targets", "verdict", "y"})


def looks_like_labels(values: Any, name: str) -> str:
    """How often each value of a column of two comes, where its name and its values are those of labels; or ""."""
    words = {word.casefold() for word in re.findall(r"[^\W\d_]+", name)}
    if not (words & _LABEL_NAMES or _asks_for(name)) or len(values) == 0:
        return ""
    if len({text_of(value) for value in values[:_LOOKED_AT]}) > 2:
        return ""
    count = Counter(map(text_of, values))
    return _listed(count) if len(count) == 2 and set(map(str.casefold, count)) <= _TWO else ""


_LOOKED_AT = 10_000
_TWO = _TRUTH | {"-1", "2"}


def looks_like_words(values: Sequence[str], name: str) -> tuple[int, int] | None:
    """How many of a column's values say anomaly and normal, where both come and its name or words are those of
    labels."""
    try:
        labels = read_labels(np.array([value.strip() for value in values], dtype=object), name)
    except InputError:
        return None
    words = {word.casefold() for word in re.findall(r"[^\W\d_]+", name)}
    said = bool(words & _LABEL_NAMES or _asks_for(name)) or {value.casefold() for value in labels.normal} <= _NORMAL
    anomalies = int(labels.anomalous.sum())
    few = len(set(values)) <= len(values) / 2
    return (anomalies, len(values) - anomalies) if said and few and 0 < anomalies < len(values) else None
