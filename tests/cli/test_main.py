"""``captum-gmar`` around its commands: what becomes of errors and warnings, and of stdout that cannot be written to."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from captum_gmar.attr._base import NO_GRADIENT
from captum_gmar.cli import explain
from captum_gmar.cli.main import main
from captum_gmar.cli.terminal import CommandError, print_text, report, reported_warnings


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CommandError("bad usage"), "bad usage"),
        (ValueError("batch_size must be above zero, but got 0."), "--batch-size must be above zero, but got 0."),
        (TypeError("images\nare\nnone"), "images are none"),
        (FileNotFoundError(2, "No such file or directory", "a b.png"), "a b.png: No such file or directory"),
        (OSError(36, "File name too long", b"\xff.png"), "\\udcff.png: File name too long"),
        (RuntimeError("no attention"), "no attention"),
        (AssertionError("of Captum"), "of Captum"),
        (FloatingPointError("NaN"), "NaN"),
        (MemoryError(), "MemoryError"),
        (ImportError("timm is not installed"), "timm is not installed"),
        (OSError("m cannot be loaded: it has no config.json"), "--model m cannot be loaded: it has no config.json"),
    ],
)
def test_errors_of_the_library_are_one_line(monkeypatch, capsys, error, line):
    def work(arguments):
        raise error

    monkeypatch.setattr(explain, "run", work)
    assert main(["explain", "a.png", "--model", "m"]) == 2
    assert capsys.readouterr() == ("", f"captum-gmar: error: {line}\n")


def test_own_warnings_are_reported_once_and_no_others(capsys):
    with reported_warnings():
        for _ in range(2):
            exec(
                "import warnings; warnings.warn(text, stacklevel=2)", {"__name__": "captum_gmar.x", "text": NO_GRADIENT}
            )
        warnings.warn("of another package", stacklevel=1)
    assert capsys.readouterr().err == f"captum-gmar: warning: {NO_GRADIENT}\n"


def run_with(code, folder, **streams):
    """Of a fresh interpreter whose command only speaks."""
    speaking = f"""
import sys
from captum_gmar.cli import explain
from captum_gmar.cli.main import main
from captum_gmar.cli.terminal import report, print_text
def work(arguments):
    {code}
    return 1, 0
explain.run = work
sys.exit(main(["explain"]))
"""
    return subprocess.run([sys.executable, "-c", speaking], cwd=folder, check=False, **streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is only on Linux")
def test_full_stdout_is_one_line(tmp_path):
    with open("/dev/full", "wb") as full:
        done = run_with("print_text('result')", tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert done.stderr.startswith(
        b"captum-gmar: error: standard output cannot be written: No space left on device. Check "
    )
    assert done.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="descriptors are closed as POSIX does")
@pytest.mark.parametrize("closed", [(1,), (1, 2), (0, 1, 2)])
def test_closed_streams_do_not_matter(tmp_path, closed):
    def close():
        for descriptor in closed:
            os.close(descriptor)

    code = "print_text('result'); report('note'); open('done', 'w').close()"
    assert run_with(code, tmp_path, preexec_fn=close).returncode == 0
    assert (tmp_path / "done").read_bytes() == b""


def test_say_and_report_go_to_their_streams(capsys):
    print_text("result\nof two lines")
    report("note\nof two lines", "note")
    assert capsys.readouterr() == ("result\nof two lines\n", "captum-gmar: note: note of two lines\n")
