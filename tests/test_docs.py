"""The site is true: its pages' Python blocks run, and what is made of the code is whole.

Its commands are those of the README's tests.

The site itself is built by Sphinx, with warnings as errors, which checks links between pages and runs the notebooks.
"""

import json
import re
import warnings
import wave
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from answering import build_processor
from installed import HAS_TRANSFORMERS_5
from matplotlib import pyplot as plt
from PIL import Image
from speech_models import save_recogniser
from text_models import llava
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

pytest.importorskip("tools.site.errors", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.papers import read_papers
from tools.site import errors
from tools.site.facts import docstring

DOCS = Path(__file__).resolve().parents[1] / "docs"

WRITTEN = sorted(
    path.relative_to(DOCS).as_posix()
    for folder in (DOCS, DOCS / "how-to", DOCS / "concepts")
    for path in folder.glob("*.md")
)
SMALL = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 48}
NEEDS = {"how-to/timm.md": "timm", "how-to/training.md": "accelerate"}  # a package each
ANSWERS, SPEECH = "llava-hf/llava-1.5-7b-hf", "openai/whisper-tiny.en"
NEEDS_TRANSFORMERS_5 = {"how-to/generated-words.md", "how-to/speech.md"}


def blocks(page, language):
    """The page's blocks of code in this language, "" for none."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        code
        for given, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if given == language
    ]


PYTHON = [page for page in WRITTEN if blocks(page, "python")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """From the names of trained models that pages load to folders of small random ones, with their image processors."""
    torch.manual_seed(0)
    image = {"image_size": 224, "patch_size": 56}
    text = {**SMALL, "vocab_size": 10, "bos_token_id": 8, "eos_token_id": 9}
    registers = Dinov2WithRegistersConfig(**SMALL, **image, num_register_tokens=4, num_labels=10)
    models = {
        "google/vit-base-patch16-224": ViTForImageClassification(ViTConfig(**SMALL, **image, num_labels=10)),
        "openai/clip-vit-base-patch16": CLIPModel(CLIPConfig(text_config=text, vision_config={**SMALL, **image})),
        "facebook/dinov2-with-registers-small-imagenet1k-1-layer": Dinov2WithRegistersForImageClassification(registers),
    }
    folder = tmp_path_factory.mktemp("docs")
    for name, model in models.items():
        model.save_pretrained(folder / name)
        ViTImageProcessor().save_pretrained(folder / name)
    if HAS_TRANSFORMERS_5:  # which answers are explained with
        models[ANSWERS] = llava()[0]
        models[ANSWERS].save_pretrained(folder / ANSWERS)
        build_processor().save_pretrained(folder / ANSWERS)
        save_recogniser(folder / SPEECH)
    return {name: str(folder / name) for name in (*models, SPEECH)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a photo and a sound; tokens without a tokenizer, which would need the hub."""
    Image.new("RGB", (320, 240), "teal").save(tmp_path / "photo.jpg")
    with wave.open(str(tmp_path / "speech.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(range(200)) * 100)
    monkeypatch.chdir(tmp_path)
    words = {"input_ids": torch.tensor([[8, 1, 2, 9], [8, 3, 4, 9]])}
    tokenizer = type("Tokenizer", (), {"from_pretrained": lambda name: lambda *args, **kwargs: words})
    monkeypatch.setattr(transformers, "AutoTokenizer", tokenizer)
    both = SimpleNamespace(tokenizer=tokenizer.from_pretrained(""), image_processor=ViTImageProcessor())
    whole = transformers.AutoProcessor.from_pretrained
    processor = SimpleNamespace(from_pretrained=lambda name: whole(name) if ANSWERS in name or SPEECH in name else both)
    monkeypatch.setattr(transformers, "AutoProcessor", processor)
    yield tmp_path
    plt.close("all")


def test_every_block_of_python_is_run():
    """None hides behind another name of the language."""
    named = {
        language for page in WRITTEN for language in re.findall(r"^ *```(\w+)$", (DOCS / page).read_text("utf-8"), re.M)
    }
    assert named <= {"python", "text"}


LONGEST_SENTENCE = 40  # words
NO_PROSE = (  # blocks of code, formulas, what benchmarks write, tables and headings
    *(r"^ *(```+|:::+).*?^ *\1 *$", r"\$\$.*?\$\$", r"<!-- made by.*?<!-- end -->"),
    *(r"^ *\|[^\n]*$", r"^ *#[^\n]*$", r"!\[[^\]]*\]\([^)]*\)"),
)


def sentences(text):
    """Yield the sentences of Markdown; names in code are single words, and an item of a list begins a sentence."""
    for pattern in NO_PROSE:
        text = re.sub(pattern, "\n\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "name", re.sub(r"\$[^$]*\$", "x", text))
    text = re.sub(r"^ *(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.!?])[*)\"]*\s+", " ".join(paragraph.split()))


def prose():
    """Yield the name and the text of every page and every notebook."""
    for path in (DOCS.parent / "README.md", *(DOCS / page for page in WRITTEN), *(DOCS / "results").glob("*.md")):
        yield path.name, path.read_text(encoding="utf-8")
    for path in (DOCS.parent / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path.name, "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_sentences_are_short():
    assert [*sentences("One `a b` is.\n- An item of [a](b)\n- Two $x + y$ are")] == (
        ["One name is.", "An item of a", "Two x are"]
    )
    lengths = [
        (name, sentence, len(re.findall(r"\w\S*", sentence))) for name, page in prose() for sentence in sentences(page)
    ]
    assert len(lengths) > 1000
    assert [(name, sentence) for name, sentence, words in lengths if words > LONGEST_SENTENCE] == []


def test_there_are_pages():
    assert len(PYTHON) >= 15


@pytest.mark.parametrize("page", PYTHON)
def test_python_blocks_run_from_top_to_bottom(page, here, trained):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    if page in NEEDS_TRANSFORMERS_5 and not HAS_TRANSFORMERS_5:
        pytest.skip("answers are explained with transformers 5 or newer")
    names = {}
    for block in blocks(page, "python"):
        if "import lightning" in block and not find_spec("lightning"):
            continue
        for name, folder in trained.items():
            block = block.replace(f'"{name}"', repr(folder))
        block = block.replace("pretrained=True", "pretrained=False").replace("n=50", "n=2")  # scenes
        with warnings.catch_warnings():
            if "import lightning" in block:  # whose advice, and what it calls, warn
                warnings.simplefilter("ignore")
            exec(compile(block, page, "exec"), names)


@pytest.fixture(scope="module")
def messages():
    return list(errors.read_messages())


# What a message begins with: an argument and its condition; what a model, option or package is not; a file that fails.
FORMS = (
    r"(.+ )?must .+, but .+|.+ (needs?|requires?) .+, but .+|.+ cannot be combined with .+|.+ cannot be \w+[^:]*: .+"
)
REASON = r"its? .+[^.]"  # what follows the colon of the last
ADVICE = (  # what it ends with
    r"(Ablate|Add|Call|Check|Choose|Compute|Convert|Delete|Divide|Download|Drop|Explain|Fetch|Handle|Leave|Load|Make|Move"
    r"|Pass|Plot|Record|Reduce|Remove|Reorder|Resize|Return|Run|Save|Scale|See|Shorten|Spread|Take|Train|Undo|Update|Use"
    r"|Wait)\b.*"
)


def test_every_message_has_one_of_three_forms(messages):
    assert len(messages) > 300
    for message in messages:
        first, *others = re.split(r"(?<=[.?!]) (?=[A-Z`])", message.text)
        assert re.fullmatch(FORMS, first) or re.fullmatch(REASON, message.text), message
        assert all(re.fullmatch(ADVICE, sentence) for sentence in others), message
        assert others or re.search(" must |…$", " " + first) or re.fullmatch(REASON, first), message
        assert message.text[-1] in ".…" or re.fullmatch(REASON, first), message
        assert max(len(sentence.split()) for sentence in (first, *others)) <= 40, message


@pytest.mark.parametrize("name", METHODS)
def test_papers_of_methods_are_in_the_bibliography(name):
    for number in re.findall(r"arxiv\.org/abs/(\d+\.\d+)", docstring(METHODS[name])):
        assert number in read_papers()
