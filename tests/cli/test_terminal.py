"""Progress on stderr."""

import time

import pytest

from captum_gmar.cli.terminal import heartbeat


def test_slow_work_says_that_it_goes_on(capsys):
    with heartbeat("photo.jpg", every=0.02):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert set(lines) == {"captum-gmar: progress: photo.jpg: 0 s so far"}


def test_quick_work_says_nothing(capsys):
    with heartbeat("photo.jpg"):
        pass
    assert capsys.readouterr().err == ""


def test_an_error_ends_it(capsys):
    with pytest.raises(KeyError), heartbeat("photo.jpg", every=0.02):
        raise KeyError
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
