"""No picture of one test is left for another."""

from collections.abc import Iterator

import pytest
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def no_open_figures() -> Iterator[None]:
    pyplot.close("all")
    yield
    pyplot.close("all")
