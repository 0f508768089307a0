"""Finished batches survive a kill, and a torn line is cut off."""

import pytest

from captum_gmar.evaluation.data.example import Identity
from captum_gmar.evaluation.runs.journal import Batch, Record, open_journal
from captum_gmar.evaluation.runs.journal import read_batches as batches_of

FIRST = Batch(
    (Record(Identity("a.png", "1", "2"), 1, [["gmar-l1", "insertion", "blur", 0.1, [0.0, 0.1]]]),), {"a": 1.0}
)
SECOND = Batch((Record(Identity("ä", "", "3"), 0, []), Record(Identity("b", "4", "5"), 3, [["ä", "", "", 1 / 3]])), {})


def read_batches(folder):
    return list(batches_of(folder))


def test_batches_come_back_as_they_were(tmp_path):
    with open_journal(tmp_path / "journal", 0) as append:
        append(FIRST)
        append(SECOND)
    assert read_batches(tmp_path / "journal") == [FIRST, SECOND]


def test_processes_have_a_file_each(tmp_path):
    for process, batch in ((0, FIRST), (1, SECOND)):
        with open_journal(tmp_path, process) as append:
            append(batch)
    assert read_batches(tmp_path) == [FIRST, SECOND]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_batch_is_on_the_disk_when_it_is_appended(tmp_path):
    with open_journal(tmp_path, 0) as append:
        append(FIRST)
        assert read_batches(tmp_path) == [FIRST]


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_torn_line_is_cut_off(tmp_path, kept):
    with open_journal(tmp_path, 0) as append:
        append(FIRST)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:kept])  # of the same line, all but its end at most
    assert read_batches(tmp_path) == [FIRST]
    with open_journal(tmp_path, 0) as append:
        append(SECOND)
    assert read_batches(tmp_path) == [FIRST, SECOND]


def test_no_journal_is_nothing_finished(tmp_path):
    assert read_batches(tmp_path / "none") == []


@pytest.mark.parametrize("line", [b"{}\n", b"[1]\n", b"[[[1,2]],{}]\n", b'[[[["a"],1,[]]],{}]\n', b"\xff\n", b"\n"])
def test_damage_is_told(tmp_path, line):
    (tmp_path / "process-3.jsonl").write_bytes(line)
    with pytest.raises(ValueError, match=r"process-3.jsonl cannot be read: it is damaged, .* Delete it"):
        read_batches(tmp_path)


def test_no_number_is_refused(tmp_path):
    with open_journal(tmp_path, 0) as append, pytest.raises(ValueError, match="JSON compliant"):
        append(Batch((Record(Identity("a", "", ""), 0, [float("nan")]),), {}))
    assert read_batches(tmp_path) == []
