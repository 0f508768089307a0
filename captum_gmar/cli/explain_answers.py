"""The work of ``captum-gmar explain --prompt``: a page or a film of each image, which explains every word."""

from collections.abc import Mapping
from pathlib import Path

from captum_gmar.classifier.loading import quiet
from captum_gmar.cli.explain_settings import PromptSettings
from captum_gmar.cli.image_report import seen_sound_lines
from captum_gmar.cli.paths import FILMS, PictureFile
from captum_gmar.cli.sources import AnswerSource
from captum_gmar.cli.terminal import print_text, report
from captum_gmar.files.names import readable_name
from captum_gmar.files.videos import save_film
from captum_gmar.files.writing import write_page
from captum_gmar.inspection._html import model_name
from captum_gmar.inspection.answer_page import AnswerPage
from captum_gmar.visualization import compose_film
from captum_gmar.vlm.evidence import AnswerEvidence

SECONDS_A_WORD = 0.7


def explain_answers(
    source: AnswerSource, pages: Mapping[Path, PictureFile], settings: PromptSettings
) -> tuple[int, int]:
    """Ask the model about each image and write its page; return how many were explained and how many failed."""
    evidence, failed = AnswerEvidence(source.model, source.processor), 0
    for image, page in pages.items():
        try:
            print_text("\n".join([readable_name(image), *_explain(evidence, source, image, page, settings)]))
        except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
            report(error if isinstance(error, OSError) else f"{readable_name(image)}: {error}")
            failed += 1
        else:
            print_text(f"  page       {readable_name(page.path)}")
    return len(pages) - failed, failed


def _explain(
    evidence: AnswerEvidence, source: AnswerSource, image: Path, page: PictureFile, settings: PromptSettings
) -> list[str]:
    """Write the page, and return the lines about the answer."""
    picture = source.read(image) if settings.prompt else None
    question, sound = (settings.prompt, settings.answer, settings.contrast), None if settings.prompt else image
    with quiet():
        attribution = evidence.attribute(*question, images=picture, sound=sound, with_gains=True)
    page.path.parent.mkdir(parents=True, exist_ok=True)
    if picture is not None and page.path.suffix[1:].lower() in FILMS:
        words = attribution.words()
        said = [" ".join(words.tokens[: count + 1]) for count in range(len(words.tokens))]
        film = compose_film(100 * words.picture_relevance().float(), picture, said, moments=words.tokens)
        save_film(film, page.path, SECONDS_A_WORD, page.note)
    else:
        answer_page = AnswerPage(attribution, picture or (), settings.prompt, model_name(source.model))
        write_page(page.path, answer_page.html, page.note)
    answer, contrast = "".join(attribution.tokens).strip(), attribution.contrast
    lines = [f"  answer     {answer}", *([] if contrast is None else [f"  contrast   {contrast}"])]
    heard = attribution.sound
    return lines if heard is None else lines + seen_sound_lines(heard, len(heard.samples) / heard.sampling_rate)
