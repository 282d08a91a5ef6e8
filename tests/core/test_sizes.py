"""Bytes as integers or strings, and the geometry of pages that follows from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbufpools import Budget, BufferPools, ConfigurationError, MbufPools, PoolSpec
from mbufpools._sizes import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        (1, 1),
        (64 << 20, 64 << 20),
        ("7", 7),
        ("4096", 4096),
        ("512 B", 512),
        ("2 KiB", 2048),
        ("64 MiB", 64 << 20),
        ("3 GiB", 3 << 30),
        ("1 TiB", 1 << 40),
        ("64MiB", 64 << 20),
        ("  64  mib ", 64 << 20),
        ("1 kIb", 1024),
    ],
)
def test_bytes_are_an_integer_or_a_number_with_a_unit(text: int | str, nbytes: int) -> None:
    assert Budget(text).limit == nbytes


@pytest.mark.parametrize(
    "text",
    ["", "   ", "MiB", "64 MB", "64 K", "64 kilobytes", "1.5 MiB", "-1", "+1", "1e6", "64 M iB"],
)
def test_a_string_of_another_form_is_refused_with_the_right_one(text: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Budget(text)
    message = str(refusal.value)
    assert f"the limit of a Budget is {text!r}" in message
    assert 'expected bytes as an integer, or a string such as "64 MiB"' in message
    assert "(units: B, KiB, MiB, GiB, TiB)" in message


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1536 bytes"),
        (16384, "16 KiB"),
        (1 << 20, "1 MiB"),
        (3 << 30, "3 GiB"),
        (1 << 40, "1 TiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_bytes_are_shown_in_the_largest_unit_that_is_whole(nbytes: int, text: str) -> None:
    assert format_bytes(nbytes) == text


@given(st.integers(1, 1 << 60))
def test_what_is_shown_can_be_given_back(nbytes: int) -> None:
    assert parse_bytes(format_bytes(nbytes).replace("bytes", "B"), "it") == nbytes


@pytest.mark.parametrize(
    ("item_size", "items_per_page", "page_size", "fit"),
    [
        (1, 8, 4096, 64),
        (64, 8, 4096, 64),
        (65, 8, 4096, 32),
        (512, 8, 4096, 8),
        (513, 8, 8192, 14),
        (4096, 1, 4096, 1),
        (4097, 1, 8192, 1),
        (2048, 3, 8192, 4),
        (65536, 8, 524288, 8),
        ("64 KiB", 1, 65536, 1),
    ],
)
def test_a_page_is_the_smallest_power_of_two_from_4096_that_holds_the_items(
    item_size: int | str, items_per_page: int, page_size: int, fit: int
) -> None:
    spec = PoolSpec(item_size, items_per_page=items_per_page)
    assert (spec.page_size, spec.items_per_page) == (page_size, fit)


@given(st.integers(1, 1 << 24), st.integers(1, 100))
def test_the_items_of_a_page_fit_into_it_and_begin_at_cache_lines(
    item_size: int, items_per_page: int
) -> None:
    spec = PoolSpec(item_size, items_per_page=items_per_page)
    page, fit = spec.page_size, spec.items_per_page
    stride = -(-item_size // 64) * 64
    assert fit >= items_per_page
    assert fit * stride <= page < (fit + 1) * stride
    assert page >= 4096
    assert page & (page - 1) == 0
    assert page == 4096 or page // 2 < items_per_page * stride, "half of it would not do"


def test_the_pages_of_the_kernels_pools_are_the_kernels() -> None:
    """Printed by the real `pool_init`."""
    geometry = {
        pool.name: (pool.item_size, pool.page_size, pool.items_per_page)
        for pool in MbufPools().pools.values()
    }
    assert geometry == {
        "mbufpl": (256, 4096, 16),
        "mcl2k": (2048, 16384, 8),
        "mcl2k2": (2112, 32768, 15),
        "mcl4k": (4096, 32768, 8),
        "mcl8k": (8192, 65536, 8),
        "mcl9k": (9216, 131072, 14),
        "mcl12k": (12288, 131072, 10),
        "mcl16k": (16384, 131072, 8),
        "mcl64k": (65536, 524288, 8),
    }


@pytest.mark.parametrize(("min_items", "pages"), [(0, 0), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_a_minimum_of_items_is_kept_as_whole_pages(min_items: int, pages: int) -> None:
    assert PoolSpec(512, min_items=min_items).min_pages == pages


def test_a_pool_is_named_after_its_size_unless_it_has_a_name() -> None:
    pools = BufferPools("1 MiB", [PoolSpec("2 KiB"), 512, PoolSpec(1024, name="frames")])
    assert list(pools.pools) == ["512", "frames", "2048"], "in the order of the sizes"


def test_the_repr_of_a_spec_tells_its_geometry() -> None:
    spec = PoolSpec("2 KiB", name="frames")
    assert repr(spec) == "<PoolSpec 'frames': 2048 bytes, 8 to a page of 16384>"
