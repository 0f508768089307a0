"""Pictures look as usual, whatever Matplotlib's settings are."""

import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image


def test_the_users_settings_change_no_picture(run, work, models):
    arguments = ("photo.png", "--model", str(models / "vit"), "--output")
    assert run(*arguments, "out/usual.png").status == 0
    settings = ("text.usetex: True", "image.origin: lower", "font.size: 30", "backend: gtk4agg", "no such: thing")
    (work / "matplotlibrc").write_text("\n".join(settings))
    command = [sys.executable, "-m", "captum_gmar", "explain", *arguments, "out/ours.png"]
    environment = {**os.environ, "MPLBACKEND": "no-such-backend"}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    usual, ours = (np.asarray(Image.open(work / "out" / name)) for name in ("usual.png", "ours.png"))
    assert np.array_equal(ours, usual)


@pytest.mark.parametrize("module", ["evaluate", "heads"])
def test_the_other_commands_draw_alike(command, work, models, monkeypatch, module):
    from matplotlib import rc_context, rcParams, rcParamsDefault

    from captum_gmar.cli import evaluate, heads, sources

    sizes = []

    def work_of(*_):
        sizes.append(rcParams["font.size"])
        return 1, 0

    monkeypatch.setattr(sources, "open_subject", lambda *_: nullcontext())
    work_name = {evaluate: "_evaluate", heads: "_score_heads"}
    monkeypatch.setattr(*next(item for item in work_name.items() if item[0].__name__.endswith(module)), work_of)
    with rc_context({"font.size": 30}):
        assert command(module, "photo.png", "--model", "m", "--output", "out/new").status == 0
        assert rcParams["font.size"] == 30
    assert sizes == [rcParamsDefault["font.size"]]
