"""What folders of images mean: nothing but normal images trains, in the layouts and the words that people use."""

import logging
import os
import socket

import numpy as np
import pytest
import tifffile
from PIL import Image

from tailwise.errors import InputError
from tailwise.sources.auto import open_source
from tailwise.sources.image_layouts import Word, arrange, words_of
from tailwise.sources.images import ImageFolder
from tailwise.workflows import reviews
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request

GREY = np.full((16, 16), 90, np.uint8)
DEFECT = np.zeros((16, 16), np.uint8)
DEFECT[2:6, 3:8] = 255  # 20 pixels


def made(root, *counts):
    """Files NAME0.png, NAME1.png, ... for each (NAME, count); names of masks hold a defect of 20 pixels."""
    for name, count in counts:
        for number in range(count):
            path = root / name.replace("#", f"{number:03d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            mask = name.startswith("NG/BX/S1/#.png") or any(
                word in name.lower() for word in ("mask", "ground", "/gt/", "label", "annot")
            )
            Image.fromarray(DEFECT if mask else GREY).save(path)
    return root


def opened(root):
    source = ImageFolder(str(root), size=16, channels=1)
    return source, source.load()


@pytest.mark.parametrize(
    ("word", "folders"),
    [
        (Word.GOOD, "good Good GOOD goods ok OK Ok okay normal Normal NORMAL Non-defective nondefective non_defective"),
        (Word.GOOD, "not-defective no_defects defect-free AnomalyFree passed pass normal_images ok_parts OK2 i.O."),
        (Word.BAD, "bad BAD ko KO nok NOK n.i.O. ng NG not_ok NotOk non-ok defect Defects defective anomaly Anomalies"),
        (Word.BAD, "abnormal anomalous fail failed scrap rejected faulty bad_images ng_left logical_anomalies"),
        (
            Word.MASK,
            "mask masks Mask ground_truth GroundTruth ground-truth gt GT label Labels annotations scratch_mask",
        ),
        (Word.TRAIN, "train Train TRAIN training train_images"),
        (Word.TEST, "test Test testing test_public test_private test_private_mixed"),
        (Word.VALIDATION, "val valid validation Validation"),
        (Word.POINTS, "xyz point_clouds"),
    ],
)
def test_words_in_any_capitals(word, folders):
    assert {folder: words_of(folder) for folder in folders.split()} == dict.fromkeys(folders.split(), (word,))


@pytest.mark.parametrize(
    "folder", ["bottle", "kos01", "normal_light", "defect_detection", "000", "Data", "Images", "passport"]
)
def test_folders_like_any_other(folder):
    assert words_of(folder) == ()


def test_words_joined_in_one_name():
    assert words_of("test_NOK") == (Word.TEST, Word.BAD)
    assert words_of("good_train") == (Word.GOOD, Word.TRAIN)


# Files, the number that trains, that is tested normal and anomalous, and the masks of anomalies.
LAYOUTS = {
    "MVTec AD": (
        [("train/good/#.png", 5), ("test/good/#.png", 2), ("test/broken_large/#.png", 3),
         ("test/broken_small/#.png", 3), ("ground_truth/broken_large/#_mask.png", 3),
         ("ground_truth/broken_small/#_mask.png", 3)],
        (5, 2, 6, 6),
    ),
    "MVTec AD 2": (
        [("train/good/#_regular.png", 5), ("validation/good/#_regular.png", 2), ("test_public/good/#_regular.png", 2),
         ("test_public/bad/#_regular.png", 3), ("test_public/ground_truth/bad/#_regular_mask.png", 3),
         ("test_private/#.png", 4), ("test_private_mixed/#.png", 4)],
        (5, 2, 3, 3),
    ),
    "LOCO": (
        [("train/good/#.png", 5), ("validation/good/#.png", 1), ("test/good/#.png", 2),
         ("test/logical_anomalies/#.png", 3), ("ground_truth/logical_anomalies/#/000.png", 3),
         ("ground_truth/logical_anomalies/#/001.png", 3), ("test/structural_anomalies/#.png", 3),
         ("ground_truth/structural_anomalies/#/000.png", 3)],
        (5, 2, 6, 6),
    ),
    "MVTec 3D": (
        [("train/good/rgb/#.png", 5), ("train/good/xyz/#.tiff", 5), ("test/good/rgb/#.png", 2),
         ("test/good/gt/#.png", 2), ("test/hole/rgb/#.png", 3), ("test/hole/xyz/#.tiff", 3), ("test/hole/gt/#.png", 3)],
        (5, 2, 3, 3),
    ),
    "VisA as downloaded": (
        [("Data/Images/Normal/#.JPG", 5), ("Data/Images/Anomaly/#.JPG", 3), ("Data/Masks/Anomaly/#.png", 3)],
        (5, 0, 3, 3),
    ),
    "VisA split": (
        [("train/good/#.JPG", 5), ("test/good/#.JPG", 2), ("test/bad/#.JPG", 3), ("ground_truth/bad/#.png", 3)],
        (5, 2, 3, 3),
    ),
    "BTAD": (
        [("train/ok/#.bmp", 5), ("test/ok/#.bmp", 2), ("test/ko/#.bmp", 3), ("ground_truth/ko/#.png", 3)],
        (5, 2, 3, 3),
    ),
    "normal, abnormal, mask": (
        [("normal/#.png", 5), ("abnormal/#.png", 3), ("mask/#.png", 3)],
        (5, 0, 3, 3),
    ),
    "other words and capitals": (
        [("Train/Non-Defective/#.png", 5), ("Test/NON_DEFECTIVE/#.png", 2), ("Test/Defective/#.png", 3),
         ("Annotations/Defective/#_label.png", 3)],
        (5, 2, 3, 3),
    ),
    "joined words": (
        [("train_OK/#.png", 5), ("test_OK/#.png", 2), ("test_NG/#.png", 3), ("masks/#.png", 3)],
        (5, 2, 3, 3),
    ),
    "good first": (
        [("OK/train/#.png", 5), ("OK/test/#.png", 2), ("NOK/test/#.png", 3), ("NOK/GT/#.png", 0)],
        (5, 2, 3, 0),
    ),
    "kinds of normal": (
        [("boardA/good/#.png", 3), ("boardB/good/#.png", 2), ("boardA/bad/#.png", 2), ("boardB/scrap/#.png", 1)],
        (5, 0, 3, 0),
    ),
    "several sets": (
        [("cap/train/good/#.png", 3), ("nut/train/good/#.png", 2), ("cap/test/good/#.png", 2),
         ("cap/test/cut/#.png", 3), ("cap/ground_truth/cut/#_mask.png", 3)],
        (5, 2, 3, 3),
    ),
    "anomalies for training": (
        [("train/good/#.png", 5), ("train/defect/#.png", 9), ("test/good/#.png", 2), ("test/defect/#.png", 3)],
        (5, 2, 3, 0),
    ),
    "masks and images called otherwise": (
        [("normal/image_#.png", 5), ("defects/image_#.png", 3), ("defects_gt/mask_#.png", 3)],
        (5, 0, 3, 3),
    ),
    "Real-IAD": (
        [("OK/S1/#.jpg", 5), ("NG/BX/S1/#.jpg", 3), ("NG/BX/S1/#.png", 3)],
        (5, 0, 3, 3),
    ),
    "words for kinds in train": (
        [("data/train/ok_front/#.jpeg", 5), ("data/train/def_front/#.jpeg", 4), ("data/test/ok_front/#.jpeg", 2),
         ("data/test/def_front/#.jpeg", 3)],
        (5, 2, 3, 0),
    ),
    "training images in no other folder": (
        [("train/#.png", 5), ("test/good/#.png", 2), ("test/scratch/#.png", 3), ("ground_truth/scratch/#.png", 3)],
        (5, 2, 3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_trains(tmp_path, name):
    files, (trained, normal, anomalous, masked) = LAYOUTS[name]
    source, problem = opened(made(tmp_path, *files))
    assert len(problem.train) == trained
    assert (~problem.test.labels).sum() == normal
    assert problem.test.labels.sum() == anomalous
    masks = [mask for mask in problem.test.masks if mask is not None]
    assert [mask.sum() for mask in masks] == [20] * masked
    assert not any(
        mask is not None and not bad for mask, bad in zip(problem.test.masks, problem.test.labels, strict=True)
    )
    said = " ".join(problem.facts.notes)
    assert f"trains on {trained} images: " in said
    assert f"{anomalous} anomalous (" in said
    assert ("have no mask" in said) == (masked < anomalous)
    assert len(source.load_all().data) == len(source._layout()[1].parts)


def test_the_notes_count_the_folders(tmp_path):
    _, problem = opened(made(tmp_path, *LAYOUTS["MVTec 3D"][0], ("ground_truth/hole/9#.png", 1)))
    notes = problem.facts.notes
    assert notes[1] == "trains on 5 images: train/good/rgb 5"
    assert notes[2] == "tests on 5 images: 2 normal (test/good/rgb 2), 3 anomalous (test/hole/rgb 3)"
    assert "10 files are points and not read as images: test/good/xyz" not in notes
    assert "8 files are points and not read as images: test/hole/xyz 3, train/good/xyz 5" in notes
    assert "1 masks match no image: ground_truth/hole 1" in notes


def test_anomalies_without_a_mask_are_counted(tmp_path):
    files = [("train/good/#.png", 5), ("test/cut/#.png", 4), ("ground_truth/cut/elsewhere_#.png", 4)]
    _, problem = opened(made(tmp_path, *files))
    assert any(note.startswith("4 anomalous test images have no mask; looked for") for note in problem.facts.notes)
    assert "4 masks match no image: ground_truth/cut 4" in problem.facts.notes


def test_labels_beside_the_images_say_what_is_normal(tmp_path):
    made(tmp_path, *[(f"kos{item:02d}/Part#.jpg", 3) for item in range(3)])
    for item in range(3):
        for number in range(3):
            mask = DEFECT if number == item else np.zeros_like(DEFECT)
            Image.fromarray(mask).save(tmp_path / f"kos{item:02d}/Part{number:03d}_label.bmp")
    source, problem = opened(tmp_path)
    assert len(problem.train) == 6
    assert list(problem.test.data.names) == ["kos00/Part000.jpg", "kos01/Part001.jpg", "kos02/Part002.jpg"]
    assert [mask.sum() for mask in problem.test.masks] == [20, 20, 20]
    assert source.load_all().labels.sum() == 3


def test_masks_beside_the_images_of_train_and_test(tmp_path):
    """KolektorSDD2: train/ and test/ hold images and masks, empty ones too."""
    for part in ("train", "test"):
        made(tmp_path, (f"{part}/#.png", 4))
        for number in range(4):
            Image.fromarray(DEFECT * (number == 0)).save(tmp_path / f"{part}/{number:03d}_GT.png")
    _, problem = opened(tmp_path)
    assert list(problem.train.names) == [f"train/{number:03d}.png" for number in (1, 2, 3)]
    assert problem.test.labels.tolist() == [True, False, False, False]


def test_thumbnails_do_not_train(tmp_path):
    made(tmp_path, ("a/#.png", 4), ("a/thumbs/#.png", 4), ("a/thumb_#.png", 4))
    _, problem = opened(tmp_path)
    assert len(problem.train) == 4
    assert "8 files are small or drawn-over copies and not read as images" in " ".join(problem.facts.notes)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ([("good/#.png", 4), ("scratch/#.png", 3)], r"good 4, scratch 3"),
        ([("#.png", 4), ("bad/#.png", 3)], r"test_\w+ 4, bad 3"),
        ([("OK/#.png", 4), ("#.png", 3)], r"test_\w+ 3, OK 4"),
        ([("defects/#.png", 3)], r"no images to train on: defects 3"),
        ([("test/good/#.png", 3), ("test/bad/#.png", 3)], r"no images to train on"),
        ([("train/bad/#.png", 3), ("train/boardA/#.png", 4)], r"train/bad 3, train/boardA 4"),
        ([("train/#.png", 3), ("train/defect/#.png", 4)], r"train 3, train/defect 4"),
        ([("ok_#.png", 4), ("nok_#.png", 3)], r"names of 4 images .* of 3"),
        ([("images/#.png", 4), ("masks/other_#.png", 3)], r"3 masks match no image.*masks 3"),
        ([("images/#.png", 4), ("masks/#.png", 4)], r"all 4 are anomalies"),
        ([("Positive/#.jpg", 4), ("Negative/#.jpg", 3)], r"Negative 3, Positive 4"),
        ([("Crack/#.png", 3), ("Non-crack/#.png", 4)], r"Crack 3, Non-crack 4"),
        ([("cracked/#.png", 3), ("uncracked/#.png", 4)], r"cracked 3, uncracked 4"),
        ([("a/with_dust/#.png", 3), ("a/no_with_dust/#.png", 4)], r"no_with_dust 4, a/with_dust 3"),
        ([("0/#.png", 3), ("1/#.png", 4)], r"0 3, 1 4"),
        ([("cap/0/#.png", 3), ("cap/1/#.png", 4)], r"cap/0 3, cap/1 4"),
        ([("train/Negative/#.png", 4), ("train/Positive/#.png", 3)], r"called positive and negative.*train/Negative 4"),
        ([("train/0/#.png", 4), ("train/1/#.png", 3), ("test/0/#.png", 2)], r"train/0 4, train/1 3"),
        ([("cap/train/crack/#.png", 4), ("cap/train/no_crack/#.png", 3)], r"train/crack 4, cap/train/no_crack 3"),
        ([("train/ok_#.png", 4), ("train/nok_#.png", 3), ("test/ok_#.png", 2)], r"names of 4 images .* of 3"),
        ([("MT_Free/#.jpg", 4), ("MT_Free/#.png", 4)], r"8 of 8 images have the name of another"),
    ],
)
def test_what_is_in_doubt_is_refused(tmp_path, files, named):
    made(tmp_path, *files)
    with pytest.raises(InputError, match=named) as refused:
        ImageFolder(str(tmp_path), size=16).load()
    assert refused.value.hint
    photographs = sum(count for name, count in files if "mask" not in name)
    assert len(ImageFolder(str(tmp_path), size=16).load_all().data) == photographs


@pytest.mark.parametrize("files", [[("#.png", 5)], [("boardA/#.png", 2), ("boardB/#.png", 3)], [("labels/#.png", 5)]])
def test_folders_without_such_words_train_as_before(tmp_path, files):
    _, problem = opened(made(tmp_path, *files))
    assert len(problem.train) == 5
    assert problem.test is None


def test_every_file_has_a_place():
    names = [f"{a}/{b}/{n}.png" for a in ("train", "x", "Test") for b in ("ok", "y", "gt") for n in range(3)]
    layout = arrange("root", names)
    masks = {mask for files in layout.masks.values() for mask in files}
    assert set(layout.parts) | masks | set(layout.loose_masks) == set(names)
    assert not set(layout.parts) & (masks | set(layout.loose_masks))


def test_links_out_of_the_folder_are_followed_only_when_asked(tmp_path, caplog):
    photos = made(tmp_path / "photos", ("#.png", 3), ("sub/#.png", 2))
    made(tmp_path / "elsewhere", ("#.png", 4))
    (photos / "x.png").symlink_to(tmp_path / "elsewhere/000.png")
    (photos / "more").symlink_to(tmp_path / "elsewhere")
    (photos / "inside.png").symlink_to("sub/000.png")
    with caplog.at_level(logging.WARNING, logger="tailwise"):
        problem = open_source(photos, read="pixels", size=16).load()
    assert len(problem.train) == 6
    assert "2 left out, a link that leads out of the folder: more, x.png; --follow-links reads them" in caplog.text
    assert len(open_source(photos, read="pixels", size=16, follow_links=True).load().train) == 11
    with pytest.raises(InputError, match="lies outside"):
        open_source(photos).picture("more/000.png")
    with pytest.raises(InputError, match="lies outside"):
        open_source(photos).picture("../elsewhere/000.png")


def test_pipes_and_sockets_are_never_opened(tmp_path, caplog):
    made(tmp_path, ("#.png", 3))
    os.mkfifo(tmp_path / "x.png")
    os.mkfifo(tmp_path / "y.tif")
    (tmp_path / "link.png").symlink_to("x.png")
    with socket.socket(socket.AF_UNIX) as end, caplog.at_level(logging.WARNING, logger="tailwise"):
        here = os.getcwd()
        os.chdir(tmp_path)
        end.bind("z.png")
        os.chdir(here)
        assert len(open_source(tmp_path, read="pixels", size=16).load().train) == 3
    assert "3 left out, a named pipe: link.png, x.png, y.tif" in caplog.text
    assert "1 left out, a socket: z.png" in caplog.text
    with pytest.raises(InputError, match=r"x\.png is a named pipe"):
        open_source(tmp_path / "x.png")
    with pytest.raises(InputError, match="is a device"):
        open_source("/dev/null")


@pytest.mark.parametrize(
    ("folder", "files"),
    [("boards", [("#.png", 5)]), ("my photos", [("#.png", 3), ("later/#.png", 2)]), ("ok", [("#.png", 5)])],
)
def test_the_top_folder_goes_by_its_name(tmp_path, monkeypatch, folder, files):
    made(tmp_path / folder, *files)
    monkeypatch.chdir(tmp_path / folder)
    for root in (tmp_path / folder, "."):
        notes = ImageFolder(str(root), size=16).load().facts.notes
        counts = [f"{name.rpartition('/')[0] or folder} {count}" for name, count in files]
        assert notes[1] == f"trains on 5 images: {', '.join(counts)}"


NUMBERED = {
    "one class trains": (["train/0/#.png", "test/0/#.png", "test/1/#.png"], "0", (3, 3, 3)),
    "leading zeros": (["Train/000/#.png", "Test/000/#.png", "Test/001/#.png", "Test/002/#.png"], "000", (3, 3, 6)),
    "words like any other": (["train/board/#.png", "test/board/#.png", "test/solder/#.png"], "Board", (3, 3, 3)),
}


@pytest.mark.parametrize(("files", "normal", "expected"), NUMBERED.values(), ids=NUMBERED)
def test_numbered_folders_are_told_apart_where_the_normal_one_is_named(tmp_path, files, normal, expected):
    made(tmp_path, *((name, 3) for name in files))
    notes = ImageFolder(str(tmp_path), size=16, channels=1).load().facts.notes
    first = files[0].split("/")[1]
    assert f"--normal {first} says that the folders {first} are normal" in notes[2]
    source = ImageFolder(str(tmp_path), size=16, channels=1, normal=normal)
    problem = source.load()
    assert (len(problem.train), int((~problem.test.labels).sum()), int(problem.test.labels.sum())) == expected
    # New images without such folders are read as before, and nobody says what they are.
    made(tmp_path / "new", ("#.png", 4))
    assert source.at(str(tmp_path / "new")).load_all().labels is None


def test_classes_without_a_split_are_told_apart_too(tmp_path):
    made(tmp_path, ("0/#.png", 5), ("1/#.png", 3), ("masks/1/#.png", 3))
    problem = ImageFolder(str(tmp_path), size=16, channels=1, normal=("0",)).load()
    assert (len(problem.train), problem.test.labels.tolist()) == (5, [True] * 3)
    assert [int(mask.sum()) for mask in problem.test.masks] == [20] * 3


def test_a_normal_folder_that_is_missing_is_named(tmp_path):
    made(tmp_path, ("train/0/#.png", 3), ("test/1/#.png", 3))
    with pytest.raises(InputError, match="no folder '7' with images") as caught:
        ImageFolder(str(tmp_path), size=16, normal="7").load()
    assert caught.value.hint == "choose one of: 0, 1, test, train"


@pytest.mark.parametrize(
    "options",
    [{"photometric": "rgb"}, {"photometric": "minisblack"}, {"photometric": "minisblack", "compression": "zlib"}],
)
def test_one_picture_is_said_to_be_one(tmp_path, options):
    shape = (40, 30, 3) if options["photometric"] == "rgb" else (40, 30)
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "map.tif", pixels, **options)
    for data in (tmp_path / "map.tif", tmp_path):
        source = open_source(data, read="pixels", size=16)
        with pytest.raises(InputError, match="was read as images, and holds 1: at least 2 are needed") as caught:
            fit_run(Request(source), tmp_path / "run")
        assert str(data) in str(caught.value)
        assert "TIFF of 5 bands or more" in str(caught.value.hint)


@pytest.mark.parametrize("ending", ["_crack", "_defect", "_seg", "-GT", "_groundtruth", ""])
def test_masks_in_folders_of_masks_whatever_their_ending(tmp_path, ending):
    made(tmp_path, ("train/good/#.png", 4), ("test/crack/#.png", 3), (f"ground_truth/crack/#{ending}.png", 3))
    problem = ImageFolder(str(tmp_path), size=16, channels=1).load()
    assert [int(mask.sum()) for mask in problem.test.masks] == [20] * 3


TABLES = {
    "numbers": "file,label\n{good}.png,0\n{bad}.png,1\n",
    "words, no suffixes, semicolons": "Bild;Ergebnis\n{good};ok\n{bad};nok\n",
    "paths and a further column": "path\tx\tdefective\nimages/{good}.png\t1\tno\nimages/{bad}.png\t2\tyes\n",
}


def table_of(text):
    head, good, bad = text.splitlines()
    rows = [good.replace("{good}", f"{place:03d}") for place in range(6)]
    return "\n".join([head, *rows, *(bad.replace("{bad}", f"x{place:03d}") for place in range(3))])


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("place", ["images/", "", "train/"])
def test_a_table_that_calls_some_images_anomalies_is_noticed(tmp_path, text, place):
    made(tmp_path, (f"{place}#.png", 6), (f"{place}x#.png", 3))
    (tmp_path / "all.csv").write_text(table_of(text), encoding="utf-8")
    source = ImageFolder(str(tmp_path), size=16, channels=1)
    with pytest.raises(InputError, match=r"all\.csv calls 3 of these images anomalies and 6 normal") as caught:
        source.load()
    assert "folders good and bad" in str(caught.value.hint)
    # New images are scored whatever lies beside them.
    assert len(source.load_all().data) == 9


@pytest.mark.parametrize("text", ["file,board\n{good}.png,a\n{bad}.png,b", "file,exposure\n{good}.png,0\n{bad}.png,1",
                                  "name,label\nother{good}.png,0\nother{bad}.png,1", "file\n\x00\n", ""])  # fmt: skip
def test_other_tables_beside_images_say_nothing(tmp_path, text):
    made(tmp_path, ("#.png", 6), ("x#.png", 3))
    (tmp_path / "all.csv").write_text(table_of(text) if text.count("\n") == 2 and "{" in text else text)
    assert len(ImageFolder(str(tmp_path), size=16, channels=1).load().train) == 9


@pytest.mark.parametrize("suffix", [".json", ".xml", ".txt"])
def test_annotations_of_some_images_are_noticed(tmp_path, caplog, suffix):
    made(tmp_path, ("#.png", 6))
    (tmp_path / f"004{suffix}").write_text("{}")
    with caplog.at_level(logging.WARNING, "tailwise"):
        ImageFolder(str(tmp_path), size=16).load()
    assert "1 of 6 images" in caplog.text
    assert "'004.png'" in caplog.text
    caplog.clear()
    for place in range(6):
        (tmp_path / f"{place:03d}{suffix}").write_text("{}")
    with caplog.at_level(logging.WARNING, "tailwise"):
        ImageFolder(str(tmp_path), size=16).load()
    assert not caplog.text


@pytest.mark.parametrize("folder", ["val", "valid", "Validation"])
def test_validation_without_test_has_a_way_on(tmp_path, folder):
    made(tmp_path, ("train/good/#.png", 4), (f"{folder}/good/#.png", 2), (f"{folder}/crack/#.png", 3))
    notes = ImageFolder(str(tmp_path), size=16).load().facts.notes
    assert notes[2].endswith("only scored: rename their folder to test to test on them")


@pytest.mark.parametrize("folder", ["ground_truth/hole", "masks", "Annotations/bad"])
def test_masks_alone_never_train(tmp_path, folder):
    """The images themselves are of a format that is not read here, so the masks are all that could train."""
    made(tmp_path, (f"{folder}/#_mask.png", 4))
    with pytest.raises(InputError, match="lies in a folder of masks") as raised:
        opened(tmp_path)
    assert "give that folder itself" in raised.value.hint
    assert len(opened(tmp_path / folder)[1].train) == 4


@pytest.mark.parametrize("masks", ["ground_truth/hole/#_mask.png", "masks/#.png"])
def test_images_in_arrays_beside_masks_in_pictures(tmp_path, masks):
    """Arrays are images where there are no others, and masks are no others."""
    made(tmp_path, (masks, 3))
    for part in ("train/good", "test/good", "test/hole"):
        (tmp_path / part).mkdir(parents=True)
        for number in range(3):
            np.save(tmp_path / part / f"{number:03d}.npy", GREY)
    problem = opened(tmp_path)[1]
    assert problem.train.names == [f"train/good/{number:03d}.npy" for number in range(3)]
    assert list(problem.test.labels) == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("bad.txt", "", "bad.txt names no sample"),
        ("bad.txt", " \n\n", "bad.txt names no sample"),
        ("bad.csv", "sample\n", "bad.csv names no sample"),
        ("bad.txt", "other.png\n", "bad.txt names 'other.png'"),
    ],
)
def test_a_list_of_anomalies_that_names_none_is_refused_by_name(tmp_path, name, text, said):
    source, problem = opened(made(tmp_path / "photos", ("train/good/#.png", 4), ("test/bad/#.png", 2)))
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        reviews.anomalies_at(problem, source, str(tmp_path / name))
