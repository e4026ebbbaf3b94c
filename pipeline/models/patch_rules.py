"""The patches that a network takes, stated by the network and checked without running it.

A network states its rule with attributes; with the first, all others may be left out:

    multiple         sides along z, y, x must be multiples of these numbers               (1, 1, 1)
    remainders       what may be left when a side is divided by its number: 0, or 0 and 1, or 1   (0,)
    minimum          the least side along z, y, x                                          (1, 1, 1)
    image_channels   channels of the image                                                  1
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.geometry import Triple


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

    def nearest(self, patch: Triple) -> list[int]:
        """The patch that fits and is nearest to this one, along each axis; of two equally near sides the smaller."""
        return [self._nearest_side(side, axis) for axis, side in enumerate(patch)]

    def image_shape(self, patch: Triple, batch: int = 1) -> tuple[int, ...]:
        """The shape (b, c, z, y, x) of the images that the network takes."""
        return (batch, self.image_channels, *patch)

    def check(self, patch: Triple, what: str, architecture: str, channels: int = 1) -> None:
        """Raise ``ConfigError`` unless the network takes the patch, and images of so many channels.

        what: begins the message, like "inference.patch_shape".
        """
        if self.image_channels != channels:
            raise ConfigError(
                f"{architecture} takes images of {self.image_channels} channels; its arguments say {channels}: write "
                f"in_channels: {self.image_channels} there"
            )
        if not self.fits(patch):
            raise ConfigError(
                f"{what} is {list(patch)}; {architecture} with these arguments takes {self}: the nearest patch that "
                f"fits is {self.nearest(patch)}"
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

    def _nearest_side(self, side: int, axis: int) -> int:
        most = max(side, self.minimum[axis]) + 2 * self.multiple[axis]
        fitting = (other for other in range(1, most + 1) if self._side_fits(other, axis))
        return min(fitting, key=lambda other: (abs(other - side), other))
