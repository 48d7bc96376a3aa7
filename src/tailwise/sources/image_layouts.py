"""What the folders of a set of images mean: which images train, which test, and which files are masks.

Folders are read by their words, whatever the capitals: train/ok, test/KO and "Non-defective" mean what they say. The
layouts of MVTec AD, AD 2, LOCO and 3D, VisA, BTAD and Kolektor are made of such words. Only names are looked at.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache

from ..errors import InputError, printable
from .image_files import JPEG
from .paths import natural


class Word(Enum):
    """What a folder's name says of the files below it."""

    TRAIN = "train"
    TEST = "test"
    VALIDATION = "validation"
    GOOD = "good"
    BAD = "bad"
    MASK = "masks"
    POINTS = "points"
    COPY = "small or drawn-over copies"


class Part(Enum):
    """What an image is for."""

    TRAIN = "train"
    GOOD = "good"
    ANOMALOUS = "anomalous"
    UNUSED = "unused"


# Names without capitals and without what separates their words.
_WORDS = {
    Word.TRAIN: "train training trainset traindata",
    Word.TEST: "test testing tests testset testdata testpublic testprivate testprivatemixed eval evaluation",
    Word.VALIDATION: "val valid validation validate dev calibration",
    Word.GOOD: (
        "good goods ok okay oks normal normals pass passed nondefective nondefect nondefects nodefect nodefects "
        "defectfree faultfree faultless flawless undamaged anomalyfree nonanomalous notanomalous nonanomaly noanomaly "
        "nofault nondamaged accept accepted healthy intact io gut notdefective notbad clean perfect 正常 良品 合格"
    ),
    Word.BAD: (
        "bad bads ko nok noks ng ngs notok notokay notgood nogood nongood defect defects defective defectives "
        "defected anomaly anomalies anomalous abnormal abnormals abnormality abnormalities nonnormal notnormal fail "
        "fails failed failure failures scrap scraps scrapped reject rejects rejected fault faults faulty flaw flaws "
        "flawed damaged broken outlier outliers nio niok schlecht unhealthy dirty 异常 異常 不良 不良品 缺陷 次品"
    ),
    Word.MASK: (
        "mask masks groundtruth groundtruths gt gts label labels annotation annotations annotated segmentation "
        "segmentations segmentationmask segmentationmasks gtmask gtmasks defectmask defectmasks anomalymask "
        "anomalymasks labelmask labelmasks seg segs annot annots ann anns segmentationclass segmentationobject"
    ),
    Word.POINTS: "xyz pointcloud pointclouds pcd ply",
    Word.COPY: "thumb thumbs thumbnail thumbnails preview previews overlay overlays heatmap heatmaps",
}
_MEANING = {name: word for word, names in _WORDS.items() for name in names.split()}
for _said, _denied in ((Word.GOOD, Word.BAD), (Word.BAD, Word.GOOD)):
    for _name in _WORDS[_said].split():
        for _no in ("non", "not", "no", "un"):
            _MEANING.setdefault(_no + _name, _denied)
# Words that say nothing of what a folder is for.
_FILLER_WORDS = (
    "image images img imgs picture pictures pics photo photos jpg jpeg png bmp tif tiff data dataset set sets sample "
    "samples part parts file files rgb class folder dir all the of only"
)
_FILLERS = frozenset(_FILLER_WORDS.split())
# In "defect-detection" and its like, a word for the bad names a subject.
_SUBJECT_WORDS = "detection inspection dataset database benchmark recognition classification types kinds"
_SUBJECTS = frozenset(_SUBJECT_WORDS.split())
# Where such a word begins or ends a longer name, "scratch_mask" or "ng_left", it still means what it says; other
# words, as in "normal_light", may name a kind of normal.
_STRONG = ("good", "ok", "mask", "masks", "label", "labels", "gt")
_VERDICTS = (Word.GOOD, Word.BAD)
_SPLITS = (Word.TRAIN, Word.TEST, Word.VALIDATION)
_NO_PHOTOGRAPH = (Word.MASK, Word.POINTS, Word.COPY)
_SURELY_MASKS = re.compile("mask|ground.?truth|segmentation", re.IGNORECASE)
_MASK_WORDS = "masks?|gt|groundtruth|ground_truth|labels?|annotations?|segmentation|seg"
_MASK_FILE = re.compile(rf"^(?P<image>.+?)[ _.\-]+(?:{_MASK_WORDS})(?:[ _.\-]*\d+)?$", re.IGNORECASE)
_MASK_FIRST = re.compile(rf"^(?:{_MASK_WORDS})[ _.\-]*(?P<image>.+)$", re.IGNORECASE)
_MASK_JOINED = re.compile(rf"^(?P<image>.+?)(?:{_MASK_WORDS})(?:[ _.\-]*\d+)?$", re.IGNORECASE)
_MASK_NAMES = (_MASK_FILE, _MASK_FIRST, _MASK_JOINED)
_COPY_FILE = re.compile(r"(?:^thumb(?:nail)?[ _.\-]+.+|.+[ _.\-]+thumb(?:nail)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """What each image of a folder is for.

    Attributes:
        parts: for every photograph, in the given order, what it is for.
        anomalous: for every photograph, whether it is an anomaly; None where no folder says.
        masks: the mask files of photographs that have some.
        loose_masks: masks that belong to no photograph.
        left_out: how many files of each folder are no photographs, by (folder, what they are).
        unsaid: photographs of which no folder says whether they are normal: their masks say it.
        doubt: why it cannot be said what trains; raised where something has to train.
    """

    parts: dict[str, Part]
    anomalous: dict[str, bool | None]
    masks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    loose_masks: tuple[str, ...] = ()
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)
    unsaid: frozenset[str] = frozenset()
    doubt: InputError | None = None

    def told_by_masks(self, defective: dict[str, bool]) -> Layout:
        """The same layout, where these photographs are anomalies (True) or normal (False) as their masks show."""
        parts = dict(self.parts)
        for name, bad in defective.items():
            if Word.TRAIN in _splits_of(name):
                parts[name] = Part.UNUSED if bad else Part.TRAIN
            elif parts[name] is Part.TRAIN:
                parts[name] = Part.ANOMALOUS if bad else Part.TRAIN
            elif Word.TEST in _splits_of(name):
                parts[name] = Part.ANOMALOUS if bad else Part.GOOD
        # Beside masked images, those without a mask are normal.
        normal = {name: False for name in self.unsaid if defective and parts.get(name) is Part.TRAIN}
        return replace(self, parts=parts, anomalous={**self.anomalous, **normal, **defective})

    def less(self, names: Iterable[str]) -> Layout:
        """The same layout without these photographs."""
        gone = set(names)
        return replace(self, parts={name: part for name, part in self.parts.items() if name not in gone})

    def named(self, *parts: Part) -> list[str]:
        """The photographs that are for one of these, in order."""
        return [name for name, part in self.parts.items() if part in parts]

    @property
    def judged(self) -> bool:
        """Whether it is said of every photograph whether it is an anomaly."""
        return all(self.anomalous[name] is not None for name in self.parts)


def words_of(folder: str) -> tuple[Word, ...]:
    """What the name of one folder says; () for a name like any other.

    >>> words_of("Non-defective"), words_of("train_OK"), words_of("bottle")
    ((<Word.GOOD: 'good'>,), (<Word.TRAIN: 'train'>, <Word.GOOD: 'good'>), ())
    """
    return _words_of(folder)


@cache
def _words_of(folder: str) -> tuple[Word, ...]:
    pieces = [piece for piece in _pieces(folder) if not piece.isdecimal()]
    if "".join(pieces) in _MEANING:
        return (_MEANING["".join(pieces)],)
    subject = any(piece in _SUBJECTS for piece in pieces)
    pieces = [piece for piece in pieces if piece not in _FILLERS]
    words = [_MEANING.get(piece) for piece in _joined(pieces)]
    if pieces and all(words):
        return () if subject else tuple(word for word in words if word)
    if subject or len(words) < 2:
        return ()
    joined = _joined(pieces)
    strong = [
        word for piece, word in zip(joined, words, strict=True) if word is Word.BAD or (word and piece in _STRONG)
    ]
    return (strong[-1],) if strong else ()


def _pieces(name: str) -> list[str]:
    """The words of a name: "groundTruth_OK2" -> ground, truth, ok, 2."""
    spaced = re.sub(r"(?<=[a-zäöü])(?=[A-ZÄÖÜ])", " ", name)
    return [piece for piece in re.split(r"[\W_]+|(?<=\D)(?=\d)|(?<=\d)(?=\D)", spaced.lower()) if piece]


def _joined(pieces: Sequence[str]) -> list[str]:
    """Two or three neighbours that make one word together are one: not, ok -> notok."""
    result: list[str] = []
    place = 0
    while place < len(pieces):
        for length in (3, 2, 1):
            word = "".join(pieces[place : place + length])
            if length == 1 or (word in _MEANING and place + length <= len(pieces)):
                result.append(word)
                place += length
                break
    return result


@dataclass(frozen=True)
class _File:
    """One file with what its folders say.

    Attributes:
        kind: its folders that are like any other, which an image shares with its masks.
        spelled: the same, with the folders that are called good or bad.
        under: the first folder after train or test, where it is like any other.
    """

    name: str
    split: Word | None
    verdict: Word | None
    other: Word | None
    kind: tuple[str, ...]
    spelled: tuple[str, ...]
    under: str
    base: str

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]


def _file(name: str, passed: frozenset[Word], normal: frozenset[str] = frozenset()) -> _File:
    """`passed` are words that say nothing here, as all files lie in such folders. `normal` are the folders, in small
    letters, of normal photographs; then all others are anomalies."""
    *folders, last = name.split("/")
    split = verdict = other = None
    kind: list[str] = []
    spelled: list[str] = []
    under, above = "", True
    for folder in folders:
        words = [word for word in words_of(folder) if word not in passed]
        for word in words:
            split = word if word in _SPLITS else split
            verdict = word if word in _VERDICTS else verdict
            other = word if word in _NO_PHOTOGRAPH else other
        if any(word in _VERDICTS for word in words):
            spelled.append(folder.lower())
        if not words and not all(piece in _FILLERS for piece in _pieces(folder)):
            kind.append(folder.lower())
            spelled.append(folder.lower())
            under = folder if split and above else under
        above = above and (not split or any(word in _SPLITS for word in words))
    if normal and other is None:
        verdict = Word.GOOD if any(folder.lower() in normal for folder in folders) else Word.BAD
    return _File(name, split, verdict, other, tuple(kind), tuple(spelled), under, last.rpartition(".")[0])


def are_masks(names: Sequence[str]) -> bool:
    """Whether all of these files lie in folders of masks. Labels may be what was photographed; masks are not."""
    return bool(names) and all(_says(name, Word.MASK) and _SURELY_MASKS.search(name) for name in names)


def arrange(root: str, names: Iterable[str], normal: Sequence[str] = ()) -> Layout:
    """What each of the image files `names`, paths below the folder `root`, is for.

    Args:
        root: the folder.
        names: its files.
        normal: names of folders that hold the normal images, where it is asked for; then all others are anomalies.
    """
    names = list(names)
    asked = frozenset(folder.lower() for folder in normal)
    passed = frozenset(word for word in _NO_PHOTOGRAPH if names and all(_says(name, word) for name in names))
    if are_masks(names):
        raise InputError(
            f"{root}: every image that can be read lies in a folder of masks: {counts_of(names, root)}",
            "look at the files of the other folders; or, if these are the photographs, give that folder itself",
        )
    files = [_file(name, passed, asked) for name in names]
    marked = _marked_files(files)
    photographs = [file for file in files if file.other is None and file.name not in marked]
    left_out = Counter((file.folder, file.other.value) for file in files if file.other not in (None, Word.MASK))
    left_out.update((file.folder, marked[file.name].value) for file in files if marked.get(file.name) is Word.COPY)
    masks = [file for file in files if file.other is Word.MASK or marked.get(file.name) is Word.MASK]
    anomalous, parts, doubt = _judged(root, photographs)
    matched, loose = _matched(masks, photographs, anomalous)
    unsaid = frozenset(
        file.name
        for file in photographs
        if file.verdict is None and (anomalous[file.name] is None or parts[file.name] is Part.TRAIN)
    )
    if doubt is None and loose and any(parts[name] is Part.TRAIN for name in unsaid):
        doubt = InputError(
            f"{root}: {len(loose)} masks match no image, so anomalies can't be told from normal images: "
            f"{counts_of(loose, root)}",
            "give each mask the name of its image, with _mask behind it; or give the folder of the normal images alone",
        )
    doubt = doubt or _doubt_of_twins(root, [file for file in photographs if parts[file.name] is Part.TRAIN])
    return Layout(parts, anomalous, matched, loose, dict(left_out), unsaid, doubt)


def _splits_of(name: str) -> set[Word]:
    return {word for folder in name.split("/")[:-1] for word in words_of(folder) if word in _SPLITS}


def is_test(name: str, last: int = 0) -> bool:
    """Whether a file lies in a folder for testing; of its folders only the `last` ones count, where that is given."""
    return any(Word.TEST in words_of(folder) for folder in name.split("/")[:-1][-last:])


def is_validation(name: str) -> bool:
    """Whether a file lies in a folder for validation."""
    return _says(name, Word.VALIDATION)


def _says(name: str, word: Word) -> bool:
    return any(word in words_of(folder) for folder in name.split("/")[:-1])


def _marked_files(files: Sequence[_File]) -> dict[str, Word]:
    """Files beside photographs whose own name says that they are none: x_mask.png beside x.png, thumb_x.png."""
    plain = [file for file in files if file.other is None]
    used = _mask_names_used(plain)
    result = {
        file.name: Word.MASK
        for file in plain
        if any(pattern.match(file.base) for pattern in _MASK_NAMES if (file.folder, pattern) in used)
    }
    shot = {(file.folder, file.base) for file in plain if file.name.lower().endswith(JPEG)}
    for file in plain:
        # Beside x.jpg of an anomaly, x.png is its mask, as in Real-IAD.
        if file.verdict is Word.BAD and file.name.lower().endswith(".png") and (file.folder, file.base) in shot:
            result[file.name] = Word.MASK
    copies = [file for file in plain if file.name not in result and _COPY_FILE.match(file.base)]
    if len(copies) + len(result) < len(plain):
        result |= {file.name: Word.COPY for file in copies}
    return result


def _mask_names_used(files: Sequence[_File]) -> set[tuple[str, re.Pattern[str]]]:
    """The folders, with how their masks are called, in which a mask is called after an image: x_mask.png after an x
    anywhere, mask_x.png and xmask.png after an x beside it, as other names begin and end so too."""
    anywhere = {file.base.lower() for file in files}
    beside = {(file.folder, file.base.lower()) for file in files}
    used = set()
    for file in files:
        for pattern in _MASK_NAMES:
            image = match["image"].lower() if (match := pattern.match(file.base)) else ""
            if (file.folder, image) in beside or (pattern is _MASK_FILE and image in anywhere):
                used.add((file.folder, pattern))
    return used


def _judged(root: str, files: Sequence[_File]) -> tuple[dict[str, bool | None], dict[str, Part], InputError | None]:
    """Whether each photograph is an anomaly, what it is for, and why that cannot be said."""
    splits = {file.split for file in files}
    verdicts = {file.verdict for file in files}
    if Word.TRAIN in splits:
        return _by_splits(root, files)
    anomalous = {file.name: _bad(file.verdict) for file in files}
    if verdicts <= {None} and not splits - {None}:
        return anomalous, {file.name: Part.TRAIN for file in files}, _doubt_of_names(root, files)
    parts = {file.name: Part.UNUSED for file in files}
    for file in files:
        if file.split is None or file.split is Word.TEST:
            if file.verdict is Word.BAD:
                parts[file.name] = Part.ANOMALOUS
            elif file.verdict is Word.GOOD:
                parts[file.name] = Part.GOOD if file.split else Part.TRAIN
    doubt = None
    if verdicts == {None, Word.GOOD} and not splits - {None}:
        doubt = _doubt(
            root, files, "folders of normal images lie beside others", "it is not said whether the others are normal"
        )
    elif Word.GOOD not in verdicts and Word.BAD in verdicts and None in verdicts:
        doubt = _doubt(
            root, files, "folders of anomalies lie beside others", "no folder says that the others are normal"
        )
    elif Part.TRAIN not in parts.values():
        doubt = InputError(
            f"{root} has no images to train on: {_counts(files, root)}",
            "train/good should hold the normal ones; to train on all images of a folder, whatever its name, give that "
            "folder itself",
        )
    return anomalous, parts, doubt


def _by_splits(root: str, files: Sequence[_File]) -> tuple[dict[str, bool | None], dict[str, Part], InputError | None]:
    training = [file for file in files if file.split is Word.TRAIN]
    good_in_training = any(file.verdict is Word.GOOD for file in training)
    bad_in_training = any(file.verdict is Word.BAD for file in training)
    tested = [file for file in files if file.split is Word.TEST]
    # Where a folder is called good, every other is a kind of anomaly, as in MVTec AD.
    good_in_test = any(file.verdict is Word.GOOD for file in tested)
    anomalous: dict[str, bool | None] = {}
    parts: dict[str, Part] = {}
    for file in files:
        bad = _bad(file.verdict)
        part = Part.UNUSED
        if file.split is Word.TRAIN:
            if bad is None and not bad_in_training:
                bad = bool(file.under) if good_in_training else False
            part = Part.TRAIN if bad is False else Part.UNUSED
        elif file.split is Word.TEST or (file.split is None and bad is not None):
            if bad is None and file.under and (good_in_test or good_in_training):
                bad = True
            part = Part.UNUSED if bad is None else Part.ANOMALOUS if bad else Part.GOOD
        elif file.split is Word.VALIDATION and bad is None and file.under and good_in_training:
            bad = True
        anomalous[file.name], parts[file.name] = bad, part
    doubt = None
    unclear = [file for file in training if file.verdict is None and (not file.under or not good_in_training)]
    if unclear and (bad_in_training or good_in_training):
        doubt = _doubt(
            root, training, "folders for training name good or bad images beside others",
            "it is not said whether the others are normal",
        )  # fmt: skip
    elif Part.TRAIN not in parts.values():
        doubt = InputError(
            f"{root} has no normal images to train on: {_counts(files, root)}", "train/good should hold the normal ones"
        )
    unsaid = [file for file in training if file.verdict is None and parts[file.name] is Part.TRAIN]
    return anomalous, parts, doubt or _doubt_of_names(root, unsaid)


def _bad(verdict: Word | None) -> bool | None:
    return None if verdict is None else verdict is Word.BAD


def _doubt(root: str, files: Sequence[_File], what: str, why: str) -> InputError:
    good = next((file.folder for file in files if file.verdict is Word.GOOD), "")
    name = good.rpartition("/")[2]
    alone = (
        f"--normal {name} says that all other images are anomalies; or give the folder of the normal images alone, as "
        f"in {root}/{good}"
        if good
        else "--normal FOLDER names the folder of the normal images, and all others are anomalies"
    )
    return InputError(
        f"{root}: {what}, and {why}: {_counts(files, root)}",
        f"{alone}; or rename the folders: good/ trains, bad/ is tested on, and all of train/ trains where it holds no "
        "such words; --normal FOLDER,FOLDER trains on all of them",
    )


def _doubt_of_names(root: str, files: Sequence[_File]) -> InputError | None:
    """Files of one folder whose names say good and bad: ok_1.png, nok_1.png; folders that may say either."""
    folders = {folder for file in files for folder in file.kind}
    for one, other in _opposites(folders):
        return _doubt(root, files, f"folders are called {one} and {other}", "either may be the anomalies")
    verdicts = [words[0] for file in files if (words := _verdict_of_file(file.base))]
    good, bad = verdicts.count(Word.GOOD), verdicts.count(Word.BAD)
    if not (good and bad) or good + bad < len(files) / 2:
        return None
    return InputError(
        f"{root}: the names of {good} images say that they are normal and of {bad} that they are anomalies",
        "move them to two folders, good/ and bad/: good/ trains, and bad/ never does",
    )


def _opposites(folders: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Folders of which one denies the other, or that are two classes by number: crack and non-crack, 0 and 1."""
    names = {"".join(_pieces(folder)): folder for folder in folders}
    for name, folder in names.items():
        for no in ("non", "not", "no", "un", "without"):
            if no + name in names:
                yield folder, names[no + name]
    for one, other in (("positive", "negative"), ("pos", "neg")):
        if {one, other} <= set(names):
            yield names[one], names[other]
    if {name for name in names if name.isdecimal()} == {"0", "1"}:
        yield names["0"], names["1"]


def _doubt_of_twins(root: str, files: Sequence[_File]) -> InputError | None:
    """Files of one name and two suffixes, such as x.jpg and its mask x.png."""
    count = Counter((file.folder, file.base.lower()) for file in files)
    twins = [file.name for file in files if count[file.folder, file.base.lower()] > 1]
    if len(twins) < max(4, len(files) / 2):
        return None
    return InputError(
        f"{root}: {len(twins)} of {len(files)} images have the name of another but for the suffix, so one of each two "
        f"may be a mask or a copy: {counts_of(twins, root)}",
        "move masks to a folder masks/, or add _mask to their names; remove copies",
    )


def _verdict_of_file(base: str) -> tuple[Word, ...]:
    pieces = _joined(_pieces(base))
    ends = [_MEANING.get(piece) for piece in (pieces[0], pieces[-1])] if pieces else []
    return tuple(word for word in ends if word in _VERDICTS)[:1]  # type: ignore[misc]


def _matched(
    masks: Sequence[_File], photographs: Sequence[_File], anomalous: dict[str, bool | None]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The masks of each photograph, and those of none."""
    by_base: dict[str, list[_File]] = defaultdict(list)
    for file in photographs:
        for base in dict.fromkeys((file.base.lower(), _core(file.base))):
            by_base[base].append(file)
    ranks: dict[str, list[tuple[int, str]]] = defaultdict(list)
    loose: list[str] = []
    for mask in masks:
        image, rank = _image_of(mask, by_base, anomalous)
        if image is None:
            loose.append(mask.name)
        else:
            ranks[image.name].append((rank, mask.name))
    # x_mask.png is surer than x.png beside it, which may be a copy of the image.
    return {
        name: tuple(sorted((mask for rank, mask in ranked if rank == min(ranked)[0]), key=natural))
        for name, ranked in ranks.items()
    }, tuple(loose)


def _image_of(
    mask: _File, by_base: dict[str, list[_File]], anomalous: dict[str, bool | None]
) -> tuple[_File | None, int]:
    """The one photograph that a mask is of, and how sure its name is: 0 is surest."""
    named = [match["image"] for pattern in _MASK_NAMES if (match := pattern.match(mask.base))]
    *above, last = mask.folder.lower().split("/")
    # A mask called as the image, or in a folder of masks called as it: ground_truth/KIND/IMAGE/000.png.
    tries = [(base, mask, 0) for base in named] + [(mask.base, mask, 1)]
    # In a folder of masks 000_crack.png is of 000.png.
    shorter, _, ending = mask.base.rpartition("_")
    if mask.other is Word.MASK and shorter and ending.isalpha():
        tries.append((shorter, mask, 1))
    if above:
        tries.append((last, replace(mask, kind=_less(mask.kind, last), spelled=_less(mask.spelled, last)), 2))
    for agree in (_spelled_alike, _of_one_kind, _kind_within, _one_without_kind):
        for base, asked, rank in tries:
            for key in dict.fromkeys((base.lower(), _core(base))):
                alike = [file for file in by_base.get(key, []) if _may_be_of(asked, file) and agree(asked, file)]
                # Masks are of anomalies where a normal image of the same name might be meant too.
                alike = [file for file in alike if anomalous[file.name] is not False] or alike
                alike = [file for file in alike if file.base.lower() == base.lower()] or alike
                if len(alike) == 1:
                    return alike[0], rank
    return None, 0


def _less(folders: tuple[str, ...], last: str) -> tuple[str, ...]:
    return folders[:-1] if folders and folders[-1] == last else folders


def _may_be_of(mask: _File, image: _File) -> bool:
    splits = mask.split is None or image.split is None or mask.split is image.split
    return splits and (mask.verdict in (None, image.verdict) or (mask.verdict is Word.BAD and image.verdict is None))


def _spelled_alike(mask: _File, image: _File) -> bool:
    return mask.spelled == image.spelled


def _of_one_kind(mask: _File, image: _File) -> bool:
    return mask.kind == image.kind


def _kind_within(mask: _File, image: _File) -> bool:
    rest = iter(image.kind)
    return bool(mask.kind) and all(folder in rest for folder in mask.kind)


def _one_without_kind(mask: _File, image: _File) -> bool:
    return not mask.kind or not image.kind


def _core(base: str) -> str:
    """A file's name without words such as image: "image_001" and "mask 001" are of one picture."""
    pieces = [piece for piece in _pieces(base) if piece not in _FILLERS]
    return " ".join(pieces) or base.lower()


def _counts(files: Sequence[_File], root: str) -> str:
    return counts_of([file.name for file in files], root)


def counts_of(names: Sequence[str], root: str) -> str:
    """How many files each folder below `root` holds: "train/ok 40, train/new 3"; `root` itself goes by its name."""
    return listed(Counter(name.rpartition("/")[0] for name in names), root)


def listed(counts: Mapping[str, int], root: str, shown: int = 8) -> str:
    """The same of folders that are counted already."""
    top = os.path.basename(os.path.abspath(root)) or os.sep
    parts = [f"{printable(folder or top)} {number}" for folder, number in list(counts.items())[:shown]]
    more = len(counts) - shown
    return ", ".join(parts) + (f" and {more} more folders" if more > 0 else "")
