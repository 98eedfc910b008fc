import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from harness import module

source = module("data.sources.folder")


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures of cats and one of a dog, in a folder per class, beside what systems leave lying
    about.
    """
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["cat/1.png", "cat/2 b.jpg", "dog/x.png"]):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(module("task.features").png(np.full((3, 4), number, np.uint8)))
    (tmp_path / "pictures" / "cat" / ".hidden").touch()
    return tmp_path / "pictures"


def labels(rows: pd.DataFrame) -> dict[str, str]:
    return dict(zip(rows["id"], rows["label"], strict=True))


CLASSES = {"cat/1.png": "cat", "cat/2 b.jpg": "cat", "dog/x.png": "dog"}


@pytest.mark.row("D2")
def test_a_folder_per_class(pictures: Path) -> None:
    rows = source.folder("pictures")
    assert list(rows.columns) == ["id", "image", "label"] and labels(rows) == CLASSES
    assert rows["image"].tolist() == [(pictures / name).read_bytes() for name in CLASSES]


@pytest.mark.row("D2")
@pytest.mark.parametrize("inside", [".", "pictures"])
def test_a_zip_file_of_it_gives_the_same(pictures: Path, inside: str) -> None:
    root = pictures if inside == "." else pictures.parent
    shutil.make_archive("packed", "zip", root, None if inside == "." else inside)
    digest = module("provenance").sha256(Path("packed.zip"))
    rows = source.folder("packed.zip", sha256=digest)
    assert labels(rows) == {
        ("" if inside == "." else "pictures/") + name: label for name, label in CLASSES.items()
    }
    assert rows["image"].tolist() == source.folder("pictures")["image"].tolist()
    with pytest.raises(ValueError, match="has SHA-256"):
        source.folder("packed.zip", sha256="0" * 64)


@pytest.mark.row("D2")
@pytest.mark.parametrize("where", ["local", "zip"])
def test_a_manifest_says_which_files_and_labels(pictures: Path, where: str) -> None:
    (pictures / "labels.csv").write_text(
        "file,label,note\ndog/x.png,wolf,?\ncat/1.png,,\n", encoding="utf-8"
    )
    shutil.make_archive("packed", "zip", pictures)
    rows = source.folder("pictures" if where == "local" else "packed.zip", manifest="labels.csv")
    assert rows["id"].tolist() == ["dog/x.png", "cat/1.png"]
    assert rows["label"].iloc[0] == "wolf" and rows["label"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("file,label\ncat/9.png,cat\n", "lists 1 files that are not there, such as .*cat/9.png"),
        ("file,label\ncat/1.png,cat\ncat/1.png,dog\n", "lists cat/1.png twice"),
        ("name,label\ncat/1.png,cat\n", r"lacks the columns \['file'\]"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(pictures: Path, lines: str, words: str) -> None:
    (pictures / "labels.csv").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        source.folder("pictures", manifest="labels.csv")


def test_files_without_a_class_and_empty_folders_are_refused(pictures: Path) -> None:
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="empty cannot be read: it is not there or empty"):
        source.folder("empty")
    (pictures / "stray.png").touch()
    with pytest.raises(ValueError, match=r"stray.png lies in no folder"):
        source.folder("pictures")
    with pytest.raises(ValueError, match="nowhere cannot be read: it is not there"):
        source.folder("nowhere")
    with pytest.raises(ValueError, match=r"is for a \.zip file"):
        source.folder("pictures", sha256="0" * 64)


def test_folders_that_are_links_and_names_in_two_spellings(pictures: Path) -> None:
    (pictures.parent / "elsewhere").mkdir()
    shutil.move(pictures / "dog" / "x.png", pictures.parent / "elsewhere" / "x.png")
    (pictures / "dog").rmdir()
    (pictures / "dog").symlink_to(pictures.parent / "elsewhere")
    (pictures / "cat" / "circle").symlink_to(pictures)
    (pictures / "cat" / "Thumbs.db").touch()
    assert labels(source.folder("pictures")) == CLASSES
    whole = (pictures / "cat" / "1.png").read_bytes()
    for spelling, name in [("Mu\u0308ll, a", "1.png"), ("M\u00fcll, a", "2.png")]:
        (pictures / spelling).mkdir()
        (pictures / spelling / name).write_bytes(whole)
    added = {"M\u00fcll, a/1.png": "M\u00fcll, a", "M\u00fcll, a/2.png": "M\u00fcll, a"}
    assert labels(source.folder("pictures")) == CLASSES | added
    (pictures / "M\u00fcll, a" / "1.png").write_bytes(whole)
    with pytest.raises(ValueError, match="is there twice"):
        source.folder("pictures")
