"""``captum-gmar audit``: one page over a data set, resumed, and refused where there is nothing to audit."""

import json
import re

import pytest

from cli.commandline import save_table, written

IMAGES = 6


@pytest.fixture
def data(work):
    return save_table(work, IMAGES, boxes=[[0, 0, 8, 8]])


@pytest.fixture
def audit(command, models):
    return lambda *arguments: command("audit", *arguments, "--model", models / "vit")


def content(folder):
    page = (folder / "audit.html").read_text(encoding="utf-8")
    return json.loads(re.search('id="content">(.*?)</script>', page)[1])


def test_page_of_classes_surprises_and_pairs(work, data, audit):
    result = audit(data)
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines() == ["no alarm", "6 images audited: data-audit/audit.html"]
    assert written(work / "data-audit") == [".lock", "audit.html", "journal", "settings.json"]
    told = content(work / "data-audit")
    assert sum(each["images"] for each in told["classes"]) == told["images"] == IMAGES
    assert all(each["outside"].endswith(" %") and not each["alarm"] for each in told["classes"])
    assert all(f"{name} " in told["versions"] for name in ("captum_gmar", "torch", "pillow"))
    shares = [float(each["share"].removesuffix(" %")) for each in told["surprising"]]
    assert shares == sorted(shares)
    wrong = [each for each in told["surprising"] if each["label"] != each["predicted"]]
    assert sum(each["images"] for each in told["pairs"]) == len(wrong) > 0


def test_goes_on_where_it_stopped(work, data, audit):
    assert audit(data, "--limit", 2).status == 0
    (journal,) = (work / "data-audit" / "journal").iterdir()
    first = journal.read_bytes()
    assert audit(data).status == 0
    assert journal.read_bytes().startswith(first)
    whole, folder = content(work / "data-audit"), work / "other"
    assert audit(data, "--output", folder).status == 0
    assert content(folder) == whole


def test_images_that_cannot_be_read_are_left_out(work, data, audit):
    with data.open("a") as file:
        file.write("\nnone.png,0,")
    result = audit(data)
    assert result.status == 1
    assert result.err.splitlines() == ["captum-gmar: error: none.png: cannot be read: no such file. Check the path."]
    assert content(work / "data-audit")["images"] == IMAGES
