"""A table is Markdown, and its columns stand below one another where it is printed."""

from captum_gmar.files.markdown import table


def test_names_at_the_left_and_numbers_at_the_right():
    assert table(["method", "ms"], [["a|b", "12.3"], ["longest name", ""]]).splitlines() == [
        "| method       |   ms |",
        "| ------------ | ---: |",
        "| a\\|b         | 12.3 |",
        "| longest name |      |",
    ]
