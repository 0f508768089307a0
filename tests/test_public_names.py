"""Nothing public goes or changes unseen: names and signatures against the list that is committed beside this file."""

from pathlib import Path

import pytest

pytest.importorskip("tools.public_names", reason="the tools are not installed; they stand in a checkout")

from tools import public_names

PROMISED = (Path(__file__).parent / "public_names.txt").read_text(encoding="utf-8").splitlines()


def test_what_was_promised_is_there():
    """Where this fails and the change is meant: a line in the changelog, and ``python -m tools.public_names``."""
    there = set(public_names.public_names())
    assert [line for line in PROMISED if line not in there] == []
    assert len(PROMISED) > 100


def test_a_changed_default_is_seen():
    def before(a, *, b=1): ...

    def after(a, *, b=2): ...

    assert public_names._parameters(before) == "(a, *, b=1)" != public_names._parameters(after)
