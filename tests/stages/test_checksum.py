"""The checksum of a chunk holds the names, types, shapes and bytes of its products, and nothing else."""

import numpy as np
import pytest

from pipeline.stages.base import checksum_of

PRODUCTS = {"ids": np.arange(6, dtype=np.uint32).reshape(2, 3), "joins": np.zeros((0, 2), np.int64)}


def test_order_of_names_and_layout_in_memory_do_not_matter():
    turned = {"joins": PRODUCTS["joins"], "ids": np.asfortranarray(PRODUCTS["ids"])}
    assert checksum_of(turned) == checksum_of(PRODUCTS)


@pytest.mark.parametrize(
    "other",
    [
        {"ids": np.arange(6, dtype=np.uint32).reshape(3, 2)},
        {"ids": np.arange(6, dtype=np.uint32).reshape(2, 3).view(np.int32)},
        {"ids": np.arange(1, 7, dtype=np.uint32).reshape(2, 3)},
        {"joins": np.zeros((0, 3), np.int64)},
    ],
    ids=["shape", "type", "bytes", "shape of nothing"],
)
def test_another_shape_type_or_byte_is_another_checksum(other):
    """Arrays with the same bytes, but of another shape or type, have another checksum."""
    assert checksum_of({**PRODUCTS, **other}) != checksum_of(PRODUCTS)


def test_another_name_is_another_checksum():
    assert checksum_of({"labels": PRODUCTS["ids"]}) != checksum_of({"ids": PRODUCTS["ids"]})
