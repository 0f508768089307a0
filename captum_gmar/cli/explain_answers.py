"""The work of ``captum-gmar explain --prompt``: a page for each image of what fed every word of the answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from captum_gmar.cli.paths import PictureFile
from captum_gmar.cli.sources import AnswerSource
from captum_gmar.cli.terminal import print_text, report
from captum_gmar.files.names import readable
from captum_gmar.files.writing import write_page
from captum_gmar.inspection.answer_page import AnswerPage
from captum_gmar.vlm.evidence import AnswerEvidence


class PromptSettings(NamedTuple):
    """What is asked of every image: the prompt, the answer if it is given, and what to explain it rather than."""

    prompt: str
    answer: str | None = None
    contrast: str | None = None


def explain_answers(
    source: AnswerSource, pages: Mapping[Path, PictureFile], settings: PromptSettings
) -> tuple[int, int]:
    """Asks the model about each image and writes its page.

    Args:
        source: the model, its processor, and what reads images.
        pages: where the page of each image goes.
        settings: what is asked.

    Returns:
        How many were explained and how many failed. Failures are reported.

    Raises:
        ValueError, ImportError: if the model generates no text, or transformers is too old.
    """
    evidence, failed = AnswerEvidence(source.model, source.processor), 0
    for image, page in pages.items():
        try:
            print_text(f"{readable(image)}\n  answer     {_explain(evidence, source, image, page, settings)}")
        except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
            report(error if isinstance(error, OSError) else f"{readable(image)}: {error}")
            failed += 1
        else:
            print_text(f"  page       {readable(page.path)}")
    return len(pages) - failed, failed


def _explain(
    evidence: AnswerEvidence, source: AnswerSource, image: Path, page: PictureFile, settings: PromptSettings
) -> str:
    """The answer, whose page is written."""
    picture = source.read(image)
    attribution = evidence.attribute(settings.prompt, settings.answer, settings.contrast, images=picture)
    answer_page = AnswerPage(attribution, picture, settings.prompt)
    page.path.parent.mkdir(parents=True, exist_ok=True)
    write_page(page.path, answer_page.html, page.note)
    return "".join(attribution.tokens).strip()
