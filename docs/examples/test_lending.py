"""The programs of lending.py as tests: pytest runs each in every schedule, on both backends."""

import lending
import pytest


@pytest.mark.explore
async def test_two_readers_both_get_the_book():
    await lending.two_readers()


@pytest.mark.explore(cancel=True)
async def test_a_cancelled_reader_takes_no_book_away():
    await lending.two_readers_at_the_best_desk()
