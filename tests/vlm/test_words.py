"""Texts of tokens and their words, by hand."""

import pytest

from captum_gmar.vlm.words import group_words, token_texts


class Bytes:
    """Tokenizer of UTF-8 bytes that marks incomplete characters."""

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")


class Spaced:
    """Tokenizer that puts spaces between tokens."""

    def decode(self, ids):
        return " ".join("abc"[number] for number in ids)


def test_texts_are_what_each_token_adds_to_the_text():
    assert token_texts(Spaced(), [0, 1, 2]) == ["a", " b", " c"]


def test_texts_without_a_tokenizer_are_numbers():
    assert token_texts(None, [7, 12]) == ["7", "12"]


def test_parts_of_a_character_are_shown_as_the_tokenizer_shows_them_alone():
    """The first byte of é is no character, and the text of both bytes does not begin with its mark."""
    assert token_texts(Bytes(), [*"aé".encode()]) == ["a", "\ufffd", "\ufffd"]


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
def test_words_hold_each_token_once(tokens, words):
    spans = group_words(tokens)
    assert ["".join(tokens[span]).strip() for span in spans] == words
    assert [token for span in spans for token in tokens[span]] == tokens
