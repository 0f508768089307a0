"""A folder of results has one owner and one kind of settings."""

import errno
import json
import os

import pytest

from captum_gmar.evaluation.runs import folder
from captum_gmar.evaluation.runs.folder import JOURNAL, use_folder


def content(place):
    return {path.name: path.read_text() for path in place.rglob("*") if path.is_file()}


def test_one_owner_in_one_process(tmp_path):
    def open_it():
        with use_folder(tmp_path, {}, {}, print):
            pass

    with (
        use_folder(tmp_path, {}, {}, print),
        pytest.raises(BlockingIOError, match="cannot be used: this process uses it already"),
    ):
        open_it()
    open_it()


@pytest.mark.parametrize("content", [b"text", b"\xff\xfe", b'{"settings": {"model": "another"}, "versions": {}}'])
def test_settings_under_which_nothing_was_measured_are_replaced(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content)
    with use_folder(tmp_path, {"model": "this"}, {}, print):
        assert json.loads((tmp_path / "settings.json").read_text())["settings"] == {"model": "this"}


@pytest.mark.parametrize("name", ["journal", "notes.txt"])
def test_a_folder_of_other_files_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("of the user")
    with pytest.raises(ValueError, match="must be a new or empty folder"), use_folder(tmp_path, {}, {}, print):
        pass
    assert content(tmp_path) == {name: "of the user"}


def refused(number):
    def lockf(file, operation):
        raise OSError(number, os.strerror(number))

    return lockf


@pytest.mark.parametrize("lockf", [None, refused(errno.ENOLCK), refused(errno.ENOTSUP)])
def test_where_files_cannot_be_locked_it_is_said(tmp_path, monkeypatch, lockf):
    monkeypatch.setattr(folder, "lockf", lockf)
    notes = []
    with use_folder(tmp_path, {}, {}, notes.append):
        pass
    assert len(notes) == 1
    assert "see to it that no other run works there" in notes[0]


def test_versions_that_are_known_and_differ_are_told(tmp_path):
    notes = []
    with use_folder(tmp_path, {}, {"torch": "2.12"}, notes.append):
        (tmp_path / JOURNAL).mkdir()
        (tmp_path / JOURNAL / "process-0.jsonl").write_text("{}")
    with use_folder(tmp_path, {}, {"torch": "2.13", "pillow": "13.0"}, notes.append):
        pass
    assert notes == ["results so far were made with other versions: torch 2.12 there, 2.13 here"]
