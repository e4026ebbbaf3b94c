"""Pictures of meshes without a browser: what is nearer hides what is behind it, and all is in the picture."""

import numpy as np

from pipeline.shapes.meshing import Mesh
from pipeline.viewing.rendering import render

RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
NM = (8.0, 8.0, 8.0)


def square(y: float, side: float) -> Mesh:
    """A square across the axis y, around the origin."""
    corners = np.array([[-1, 0, -1], [-1, 0, 1], [1, 0, 1], [1, 0, -1]], np.float32) * side / 2
    return Mesh(corners + np.float32([0, y, 0]), np.array([[0, 1, 2], [0, 2, 3]], np.uint32))


def test_the_nearer_surface_hides_the_other() -> None:
    """The eye is on the side of small y: a small square before a large one is seen whole, and never behind it."""
    large, colours = square(0, 40), {1: RED, 2: GREEN}
    before, behind = (render({1: large, 2: square(y, 10)}, colours, NM, 200) for y in (-5, 5))
    assert green_of(before) > 500
    assert green_of(behind) == 0


def green_of(picture: np.ndarray) -> int:
    return int((picture[..., 1] > picture[..., 0]).sum())


def test_everything_is_in_the_picture_on_white() -> None:
    """The rim stays white, the surface has no holes, and a voxel that is longer along z makes a higher picture."""
    flat, high = (render({1: square(0, 40)}, {1: RED}, (z, 8, 8), 200) for z in (8, 16))
    for picture in (flat, high):
        rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (rim == 1).all()
    drawn = [np.argwhere(picture[..., 1] < 0.9) for picture in (flat, high)]
    rows, columns = zip(*(np.ptp(each, axis=0) for each in drawn), strict=True)
    assert rows[1] / columns[1] > 1.5 * rows[0] / columns[0]
    middle = flat[80:120, 80:120, 1]
    assert (middle < 0.5).all()


def test_the_picture_is_the_same_each_time() -> None:
    """Two renderings of the same meshes do not differ in a bit."""
    meshes = {1: square(0, 40), 2: square(-3, 20)}
    first, second = (render(meshes, {1: RED, 2: GREEN}, NM, 100) for _ in range(2))
    assert (first == second).all()
