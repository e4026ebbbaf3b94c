"""Random lattices and boxes for the tests of inference."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pipeline.geometry import BoundingBox
from pipeline.inference.lattice import PatchLattice

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Under these settings, no test fails because the machine is busy."""


@st.composite
def lattices(draw, largest=30):
    start = tuple(draw(st.integers(-5, 20)) for _ in range(3))
    shape = tuple(draw(st.integers(1, largest)) for _ in range(3))
    patch = tuple(draw(st.integers(1, 12)) for _ in range(3))
    overlap = tuple(draw(st.integers(0, p - 1)) for p in patch)
    return PatchLattice(BoundingBox.from_shape(shape, start), patch, overlap)


@st.composite
def boxes_in(draw, bounds):
    cuts = [sorted(draw(st.tuples(st.integers(a, b - 1), st.integers(a, b - 1)))) for a, b in axes(bounds)]
    return BoundingBox(tuple(a for a, _ in cuts), tuple(b + 1 for _, b in cuts))


def axes(box):
    return list(zip(box.start, box.stop, strict=True))
