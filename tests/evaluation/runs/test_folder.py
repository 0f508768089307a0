"""A folder of results has one owner, and its reports come and go as a whole."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from captum_gmar.evaluation.runs import folder as folders
from captum_gmar.evaluation.runs import lock
from captum_gmar.evaluation.runs.folder import JOURNAL, opened, replacing_report

NAMES = ("summary.md", "a.csv", "b.csv", "plots")


def write(folder: Path, text: str, *names: str) -> None:
    with replacing_report(folder, NAMES) as new:
        for name in names:
            (new / name).write_text(text)
        (new / "plots").mkdir()
        (new / "plots" / f"{text}.png").write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_report_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "journal.txt").write_text("kept")
    write(tmp_path, "old", "summary.md", "a.csv", "b.csv")
    write(tmp_path, "new", "summary.md", "a.csv")
    assert content(tmp_path) == {"journal.txt": "kept", "summary.md": "new", "a.csv": "new", "new.png": "new"}


def test_after_an_error_the_report_before_still_stands(tmp_path: Path) -> None:
    write(tmp_path, "old", "summary.md", "a.csv")
    before = content(tmp_path)
    with suppress(OSError), replacing_report(tmp_path, NAMES) as new:
        (new / "a.csv").write_text("half")
        raise OSError("disk full")
    assert content(tmp_path) == before


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_what_a_kill_leaves_on_the_way_is_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """After the whole report was written and so many of its files were moved; no old one stands beside them."""
    with opened(tmp_path, {}, {}, print):
        write(tmp_path, "old", "summary.md", "a.csv", "b.csv")
    replace, calls = os.replace, list[str]()

    def killed(source: Path, target: Path) -> None:
        if len(calls) == 1 + moved:  # the first puts the whole at hand
            raise KeyboardInterrupt
        calls.append(str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "replace", killed)
        patch.setattr(folders, "write_json", lambda path, value: path.write_text(folders.json.dumps(value)))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "new", "summary.md", "a.csv")
    assert not (tmp_path / "summary.md").exists()
    known = {text for name, text in content(tmp_path).items() if name.endswith((".md", ".csv", ".png"))}
    assert known == {"new"}
    with opened(tmp_path, {}, {}, print):
        assert {name: (tmp_path / name).read_text() for name in ("summary.md", "a.csv")} == {
            "summary.md": "new",
            "a.csv": "new",
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "a.csv",
        "plots",
        "settings.json",
        "summary.md",
    ]


def test_one_owner_in_one_process(tmp_path: Path) -> None:
    def open_it() -> None:
        with opened(tmp_path, {}, {}, print):
            pass

    with opened(tmp_path, {}, {}, print), pytest.raises(BlockingIOError, match="this process is at work there already"):
        open_it()
    open_it()


@pytest.mark.parametrize("content", [b"text", b"\xff\xfe", b'{"settings": {"model": "another"}, "versions": {}}'])
def test_settings_under_which_nothing_was_measured_are_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    with opened(tmp_path, {"model": "this"}, {}, print):
        assert json.loads((tmp_path / "settings.json").read_text())["settings"] == {"model": "this"}


@pytest.mark.parametrize("name", ["journal", "notes.txt"])
def test_a_folder_of_other_files_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("of the user")
    with pytest.raises(ValueError, match="must be a new or empty folder"), opened(tmp_path, {}, {}, print):
        pass
    assert content(tmp_path) == {name: "of the user"}


def refused(number: int) -> Callable[..., None]:
    def lockf(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    return lockf


@pytest.mark.parametrize("lockf", [None, refused(errno.ENOLCK), refused(errno.ENOTSUP)])
def test_where_files_cannot_be_locked_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lockf: Callable[..., None] | None
) -> None:
    monkeypatch.setattr(lock, "lockf", lockf)
    notes: list[str] = []
    with opened(tmp_path, {}, {}, notes.append):
        pass
    assert len(notes) == 1
    assert "see to it that no other run works there" in notes[0]


def test_versions_that_are_known_and_differ_are_told(tmp_path: Path) -> None:
    notes: list[str] = []
    with opened(tmp_path, {}, {"torch": "2.12"}, notes.append):
        (tmp_path / JOURNAL).mkdir()
        (tmp_path / JOURNAL / "process-0.jsonl").write_text("{}")
    with opened(tmp_path, {}, {"torch": "2.13", "pillow": "13.0"}, notes.append):
        pass
    assert notes == ["results so far were made with other versions: torch 2.12 there, 2.13 here"]
