"""Tokens as text, and the words that they make, worked by hand."""

from typing import Any

import pytest

from captum_gmar.vlm.words import pieces, words_of


class Bytes:
    """A tokenizer whose tokens are bytes of UTF-8, and whose text has a mark where a character is not whole."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


class Spaced:
    """A tokenizer that puts spaces between its tokens."""

    def decode(self, ids: list[int]) -> str:
        return " ".join("abc"[number] for number in ids)


def test_pieces_are_what_each_token_adds_to_the_text() -> None:
    assert pieces(Spaced(), [0, 1, 2]) == ["a", " b", " c"]


def test_pieces_without_a_tokenizer_are_numbers() -> None:
    assert pieces(None, [7, 12]) == ["7", "12"]


def test_parts_of_a_character_are_shown_as_the_tokenizer_shows_them_alone() -> None:
    """é is two bytes, of which the first alone is no character, nor does the text with both begin with its mark."""
    assert pieces(Bytes(), [*"aé".encode()]) == ["a", "\ufffd", "\ufffd"]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([" a", " stri", "ped", " star", "."], ["a", "striped", "star", "."]),
        (["it", "'s", " a", " well", "-", "known", " dog", "!", "!"], ["it's", "a", "well-known", "dog", "!", "!"]),
        (["one", " ", "two"], ["one", "two"]),
        (["", "one"], ["one"]),
        ([" "], [""]),
    ],
)
def test_words_hold_each_token_once(tokens: Any, words: Any) -> None:
    spans = words_of(tokens)
    assert ["".join(tokens[span]).strip() for span in spans] == words
    assert [token for span in spans for token in tokens[span]] == tokens
