"""Orders to transcode one frame: the words that the pool and its worker processes share. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway.codec.pixels.attributes import PixelDescription


@dataclass(frozen=True, slots=True)
class Order:
    """An order for one frame: the transfer syntax and form that it is to be brought into.

    `after` is its Photometric Interpretation afterwards, `decoded` between decoding and encoding. With `digest` it is decoded only,
    and the result is a digest of what it shows, the same in whatever transfer syntax and layout.
    """

    source: str
    target: str
    pixel: PixelDescription
    decoded: str
    after: str
    digest: bool = False

    @property
    def made(self) -> PixelDescription:
        """The pixels once they are decoded."""
        return replace(self.pixel, photometric=self.decoded)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Order:
        """Return what `as_dict` made a dictionary of."""
        return cls(**{**values, "pixel": PixelDescription(**values["pixel"])})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, fit for JSON."""
        pixel = self.pixel.as_dict()
        words = {"source": self.source, "target": self.target, "decoded": self.decoded, "after": self.after}
        return {**words, "pixel": pixel, "digest": self.digest}
