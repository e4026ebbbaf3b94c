"""The patches that a network takes, stated by the network and checked without running it.

A network states its rule with attributes; with the first, all others may be left out:

    multiple         sides along z, y, x must be multiples of these numbers               (1, 1, 1)
    remainders       what may be left when a side is divided by its number: 0, or 0 and 1, or 1   (0,)
    minimum          the least side along z, y, x                                          (1, 1, 1)
    image_channels   channels of the image                                                  1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from pipeline.errors import ConfigError
from pipeline.geometry import Triple

NEAR_SIDES = 8
"""Sides along each axis that are looked at for a patch that fits."""
Rule = Callable[[Triple], bool]
"""True for patches (z, y, x) that something else than the network's statement allows too."""


def states_rule(network: object) -> bool:
    """True if a network states which patches it takes; one that takes all states a ``multiple`` of (1, 1, 1)."""
    return hasattr(network, "multiple")


@dataclass(frozen=True)
class PatchRule:
    """Which patches one network takes."""

    multiple: Triple = (1, 1, 1)
    remainders: tuple[int, ...] = (0,)
    minimum: Triple = (1, 1, 1)
    image_channels: int = 1

    @classmethod
    def of(cls, network: object) -> PatchRule:
        """The rule that a network states; every patch fits a network that states none."""
        return cls(
            multiple=getattr(network, "multiple", (1, 1, 1)),
            remainders=getattr(network, "remainders", (0,)),
            minimum=getattr(network, "minimum", (1, 1, 1)),
            image_channels=getattr(network, "image_channels", 1),
        )

    def fits(self, patch: Triple) -> bool:
        """True if the network takes patches of this shape (z, y, x)."""
        return all(self._side_fits(side, axis) for axis, side in enumerate(patch))

    def nearest(self, patch: Triple, also: Rule = lambda _: True) -> list[int] | None:
        """The patch that fits, of which ``also`` is true, and that is the fewest sides that fit away from this one.

        Of equally near ones it is the smaller. ``None`` if there is none among the ``NEAR_SIDES`` of each axis.
        """
        sides = [self._near_sides(side, axis) for axis, side in enumerate(patch)]
        ranks = sorted(product(range(NEAR_SIDES), repeat=3), key=lambda ranks: (sum(ranks), ranks))
        near = ((sides[0][z], sides[1][y], sides[2][x]) for z, y, x in ranks)
        return next((list(other) for other in near if also(other)), None)

    def remedy(self, patch: Triple, also: Rule = lambda _: True) -> str:
        """The words that name ``nearest``."""
        near = self.nearest(patch, also)
        return f"the nearest patch that fits is {near}" if near else "no patch of about this size fits"

    def image_shape(self, patch: Triple, batch: int = 1) -> tuple[int, ...]:
        """The shape (b, c, z, y, x) of the images that the network takes."""
        return (batch, self.image_channels, *patch)

    def check(
        self, patch: Triple, what: str, architecture: str, channels: int = 1, also: Rule = lambda _: True
    ) -> None:
        """Raise ``ConfigError`` unless the network takes the patch, and images of so many channels.

        what: begins the message, like "inference.patch_shape". also: what the remedy must fulfil besides.
        """
        if self.image_channels != channels:
            raise ConfigError(
                f"{architecture} takes images of {self.image_channels} channels; its arguments say {channels}: write "
                f"in_channels: {self.image_channels} there"
            )
        if not self.fits(patch):
            raise ConfigError(
                f"{what} is {list(patch)}; {architecture} with these arguments takes {self}: {self.remedy(patch, also)}"
            )

    def __str__(self) -> str:
        multiple = "" if self.multiple == (1, 1, 1) else f"each side a multiple of {list(self.multiple)}"
        if multiple and self.remainders != (0,):
            multiple += " or one more" if 0 in self.remainders else " plus one"
        least = "" if self.minimum == (1, 1, 1) else f"each side at least {list(self.minimum)}"
        return ", ".join(text for text in (multiple, least) if text) or "every patch"

    def _side_fits(self, side: int, axis: int) -> bool:
        number = self.multiple[axis]
        return side >= max(1, self.minimum[axis]) and (number == 1 or side % number in self.remainders)

    def _near_sides(self, side: int, axis: int) -> list[int]:
        most = max(side, self.minimum[axis]) + (NEAR_SIDES + 1) * self.multiple[axis]
        fitting = (other for other in range(1, most + 1) if self._side_fits(other, axis))
        return sorted(fitting, key=lambda other: (abs(other - side), other))[:NEAR_SIDES]
