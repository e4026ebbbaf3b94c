"""The synthetic connectomics challenge: trace the membranes of cells among organelles that look the same.

Cells of all sizes fill a square; each is outlined by a closed line, its membrane, and half of them hold organelles,
outlined by lines of the same thickness and brightness. Only enclosure tells them apart: a membrane is never inside
another line (Linsley et al. 2020, figure S3). There is no public code; this follows the text.

1. Nodes: a grid of 15 x 15, shifted and rotated, each moved at random within 50 pixels       ``_nodes``
2. Skeletons of cells: snakes of circles at 18 nodes, single circles at the others            ``_skeletons``
3. Membranes: where a point is as far from its cell's skeleton as from the ridge between      ``_halfway``
   two cells, so each border has two lines, with extracellular space between them
4. Organelles: snakes inside of cells, outlined by the same two steps                         ``_organelles``
5. A smooth warp; lines of one thickness                                                      ``_warp``, ``_lines``
6. Contrast and sharpness that vary over the picture, and noise                               ``_perturb``

The printed description cannot be followed to the letter. This is done instead; each number is a setting.

- Moderate and long snakes of the printed radii would cover 266,600 of the 250,000 pixels. The printed numbers are read
  as diameters: ``size_scale`` = 0.5 multiplies all radii, of single circles and organelles too. The smallest radius
  stays 2 pixels, since at 1 the next centre of a snake (the sum of radii less 2) would be the same point.
- Long snakes are placed first, then moderate, short, and single circles last, for the others would leave them no way.
- "Side length 15" is read as 15 nodes a side, 33 pixels apart. The grid goes on beyond 15 nodes, since a rotated square
  would leave the corners of the picture empty.
- "Not touching" means ``gap`` pixels apart, room for two membranes and the space between.
- The density of turns is normalised (2 / 1.2, where 2 is printed).
- "The ridge of the distance transform" is the border between the regions of pixels that are nearest to one skeleton;
  the full medial axis has twigs into every notch of a skeleton, which would cut membranes open. The edge of the picture
  counts as ridge, so every membrane is closed; ``crop`` cuts out the middle, as the authors' readers do.
- Where a single circle would touch another cell, other radii are tried (``circle_draws``), or half of the picture would
  be empty.
- The warp moves regions before lines are drawn, not the drawn lines, so these keep their thickness.
- Contrast times a template that is 0 nearly everywhere (20 bumps of 20 pixels fill a fifth of the picture) would leave
  nothing to see; contrast falls to ``least_contrast`` at most.
- The gain of the warp and the largest blur are not given: ``warp`` and ``blur``.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.synthetic.borders import borders
from pipeline.synthetic.challenge_settings import DEFAULT, ChallengeConfig, SnakeKind
from pipeline.synthetic.sample import Sample, sample_rng
from pipeline.synthetic.snakes import Circles, Normal

DIAGONAL = 1.5
"""A distance larger than that of two pixels that touch by a corner."""


class Geometry:
    """The regions and lines of a picture, before contrast, blur and noise are applied."""

    def __init__(self, cells: np.ndarray, organelles: np.ndarray, thickness: float) -> None:
        self.cells = cells
        """int32 (size, size): the region within each membrane, line included; 0 outside of cells"""
        self.membrane = _lines(cells, thickness)
        """int32 (size, size): the number of the cell on its line, else 0"""
        inner = np.where(ndimage.distance_transform_edt(cells > 0) > thickness + DIAGONAL, organelles, 0)
        self.organelle = _lines(inner, thickness)
        """int32 (size, size): the number of the organelle on its line, else 0"""


def make_challenge(index: int, *, seed: int = 0, config: ChallengeConfig = DEFAULT) -> Sample:
    """Sample ``index`` of a data set.

    Returns:
        image: float32 (size, size), lines of brightness up to 1 on 0, plus noise.
        target: uint8 (size, size), 1 on membranes.
        more: how many ``cells``, ``snakes`` and ``organelles`` there are.
    """
    rng = sample_rng(seed, index)
    geometry, more = make_geometry(rng, config)
    lines = (geometry.organelle > 0) | (geometry.membrane > 0 if config.membranes else False)
    image = _perturb(lines.astype(np.float32), config, rng)
    target = geometry.membrane > 0 if config.membranes else np.zeros(lines.shape, bool)
    part = _middle(config)
    return Sample(image[part], target[part].astype(np.uint8), more)


def make_geometry(rng: np.random.Generator, config: ChallengeConfig) -> tuple[Geometry, dict[str, int]]:
    """Steps 1 to 5; also returns how many cells, snakes and organelles there are."""
    skeletons, snakes = _skeletons(config, rng)
    room = np.zeros((config.size,) * 2, bool)
    room[1:-1, 1:-1] = True
    cells = _halfway(skeletons.draw(config.size), room)
    organelles = _organelles(cells, config, rng)
    cells, organelles = _warp([cells, organelles], config, rng)
    counts = {"cells": skeletons.snakes.max(initial=-1) + 1, "snakes": snakes, "organelles": organelles.max()}
    return Geometry(cells, organelles, config.thickness), {name: int(count) for name, count in counts.items()}


def _nodes(config: ChallengeConfig, rng: np.random.Generator) -> np.ndarray:
    """Nodes (n, 2) inside of the picture, in random order."""
    spacing = config.size / config.nodes
    reach = int(np.ceil(config.nodes * 0.75)) + 1
    steps = np.arange(-reach, reach + 1)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2) + rng.random(2)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    away = config.jitter * np.sqrt(rng.random(len(grid))) * np.exp(2j * np.pi * rng.random(len(grid)))
    nodes = config.size / 2 + spacing * (grid @ turn) + np.stack([away.imag, away.real], axis=-1)
    inside = ((nodes >= 1) & (nodes <= config.size - 2)).all(axis=1)
    nodes = np.unique(np.rint(nodes[inside]), axis=0)  # nodes that coincide are rejected
    return rng.permutation(nodes)


def _skeletons(config: ChallengeConfig, rng: np.random.Generator) -> tuple[Circles, int]:
    """All circles of cells, and how many snakes have more than one."""
    circles, nodes = Circles(), _nodes(config, rng)
    cell = 0
    for kind in config.snakes:
        for _ in range(kind.number):
            cell += _place(circles, cell, nodes, kind, config, rng)
    snakes = int((np.bincount(circles.snakes) > 1).sum()) if cell else 0
    for node in np.tile(nodes, (config.circle_draws, 1)):
        radius = _scaled(config.cell_radius, config, rng)
        if _free(circles, node, radius, config):
            circles.add(node, radius, cell)
            cell += 1
    return circles, snakes


def _place(
    circles: Circles, cell: int, nodes: np.ndarray, kind: SnakeKind, config: ChallengeConfig, rng: np.random.Generator
) -> bool:
    """Grow one snake from the first node that has room for it; False if no node has."""
    radius = _scaled(kind.radius, config, rng)
    for node in rng.permutation(nodes):
        if _free(circles, node, radius, config):
            last = circles.add(node, radius, cell)
            angle = rng.uniform(-np.pi, np.pi)
            for _ in range(round(kind.circles.draw(rng)) - 1):
                last, angle = _grow(circles, last, angle, kind.radius, config, rng)
            return True
    return False


def _grow(
    circles: Circles, last: int, angle: float, radii: Normal, config: ChallengeConfig, rng: np.random.Generator
) -> tuple[int, float]:
    """Add a circle to the snake that ends with circle ``last``, if one of a few fits; returns its new end."""
    for _ in range(config.walk.tries):
        radius, way = _scaled(radii, config, rng), angle + config.walk.turn(rng)
        step = circles.radii[last] + radius - config.walk.overlap
        centre = circles.centres[last] + max(step, 1.0) * np.array([np.sin(way), np.cos(way)])
        if _free(circles, centre, radius, config, but=last):
            return circles.add(centre, radius, int(circles.snakes[last])), way
    return last, angle


def _free(circles: Circles, centre: np.ndarray, radius: float, config: ChallengeConfig, but: int = -1) -> bool:
    """True if a circle lies in the picture and keeps its distance from all others."""
    edge = config.gap / 2
    inside = (centre - radius >= edge).all() and (centre + radius <= config.size - 1 - edge).all()
    return bool(inside) and circles.clear_of(centre, radius, config.gap, but=but)


def _scaled(radii: Normal, config: ChallengeConfig, rng: np.random.Generator) -> float:
    return max(config.size_scale * radii.draw(rng), config.least_radius)


def _halfway(skeletons: np.ndarray, room: np.ndarray) -> np.ndarray:
    """The region around each skeleton that is nearer to it than to the ridge between skeletons, or than to the end of
    the room.

    Each region is connected to its skeleton: on the straight way there, the distance to the skeleton shrinks as fast as
    any distance can.

    skeletons: int32 (y, x), 0 outside. room: bool (y, x); what is outside of it counts as ridge.
    """
    if not skeletons.any():
        return skeletons
    distance, nearest = ndimage.distance_transform_edt(skeletons == 0, return_indices=True)
    territory = skeletons[tuple(nearest)]
    ridge = ~room | borders(territory)
    return np.where(distance < ndimage.distance_transform_edt(~ridge), territory, 0)


def _organelles(cells: np.ndarray, config: ChallengeConfig, rng: np.random.Generator) -> np.ndarray:
    """Regions of organelles, int32 like ``cells``, numbered from 1."""
    depth = ndimage.distance_transform_edt(cells > 0)
    skeletons = np.zeros_like(cells)
    for number, box in enumerate(ndimage.find_objects(cells), start=1):
        if box is not None and rng.random() < config.organelle_share:
            cell = cells[box] == number
            room = cell & (depth[box] > config.thickness + config.organelle_gap)
            drawn = _fill(room, config.organelle_area * np.count_nonzero(cell), config, rng)
            skeletons[box][drawn > 0] = drawn[drawn > 0] + skeletons.max()
    return _halfway(skeletons, depth > config.thickness)


def _fill(room: np.ndarray, area: float, config: ChallengeConfig, rng: np.random.Generator) -> np.ndarray:
    """Skeletons of organelles in the room of one cell, int32 from 1, added until they cover ``area`` pixels."""
    drawn = np.zeros(room.shape, np.int32)
    for number in range(1, config.organelle_tries + 1):
        free = room & (ndimage.distance_transform_edt(drawn == 0) >= config.organelle_gap) if drawn.any() else room
        if not free.any() or np.count_nonzero(drawn) >= area:
            break
        _wander(drawn, free, number, config, rng)
    return drawn


def _wander(
    drawn: np.ndarray, free: np.ndarray, number: int, config: ChallengeConfig, rng: np.random.Generator
) -> None:
    """Draw one organelle: the part of a snake's circles that lies in free space."""
    centre = rng.permutation(np.argwhere(free))[0].astype(float)
    radius, angle = _scaled(config.organelle_radius, config, rng), rng.uniform(-np.pi, np.pi)
    y, x = np.ogrid[: drawn.shape[0], : drawn.shape[1]]
    for _ in range(round(config.organelle_circles.draw(rng))):
        drawn[((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2) & free] = number
        following = _scaled(config.organelle_radius, config, rng)
        angle += config.walk.turn(rng)
        step = max(radius + following - config.walk.overlap, 1.0)
        centre, radius = centre + step * np.array([np.sin(angle), np.cos(angle)]), following


def _template(config: ChallengeConfig, rng: np.random.Generator) -> np.ndarray:
    """A sum of Gaussian bumps anywhere in the picture, from 0 to 1: float64 (size, size)."""
    centres = rng.uniform(0, config.size, (2, config.bumps, 1))
    y, x = np.exp(-0.5 * ((np.arange(config.size) - centres) / config.bump_width) ** 2)  # (bumps, size) each
    bumps = np.einsum("by,bx->yx", y, x)
    low, high = bumps.min(), bumps.max()
    return (bumps - low) / (high - low)  # type: ignore[no-any-return]


def _warp(regions: list[np.ndarray], config: ChallengeConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """The regions, displaced along the gradient of a template; nearest pixel."""
    gradient = np.gradient(_template(config, rng))
    places = [
        np.clip(np.rint(np.arange(config.size).reshape(shape) + config.warp * step), 0, config.size - 1).astype(int)
        for shape, step in zip(((-1, 1), (1, -1)), gradient, strict=True)
    ]
    return [_parted(region[tuple(places)]) for region in regions]


def _parted(regions: np.ndarray) -> np.ndarray:
    """The regions, with 0 at every pixel beside another region, corners included, and at the edge of the picture."""
    others = np.where(regions == 0, regions.max() + 1, regions)
    together = ndimage.maximum_filter(regions, 3) > ndimage.minimum_filter(others, 3)
    parted = np.where(together, 0, regions)
    parted[[0, -1]] = parted[:, [0, -1]] = 0
    return parted


def _lines(regions: np.ndarray, thickness: float) -> np.ndarray:
    """The number of each region on the closed line along its border, which lies inside of it."""
    return np.where(ndimage.distance_transform_edt(regions > 0) <= thickness, regions, 0)


def _perturb(lines: np.ndarray, config: ChallengeConfig, rng: np.random.Generator) -> np.ndarray:
    """Step 6: float32 (size, size)."""
    contrast, sharp = _template(config, rng), _template(config, rng)
    image = lines * (config.least_contrast + (1 - config.least_contrast) * contrast)
    image = sharp * image + (1 - sharp) * ndimage.gaussian_filter(image, config.blur)
    return (image + rng.normal(0, config.noise, image.shape)).astype(np.float32)


def _middle(config: ChallengeConfig) -> tuple[slice, slice]:
    """The part that is returned."""
    side = config.crop or config.size
    start = (config.size - side) // 2
    return (slice(start, start + side),) * 2
