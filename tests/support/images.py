"""Images of any description: attributes, cells, and the data set around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.dicom.syntaxes import EXPLICIT_LITTLE
from tests.support.elements import Made, encode
from tests.support.transcoding import DataSet

BEFORE = [
    Made(0x00080005, "CS", b"ISO_IR 100"),
    Made(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
    Made(0x00080018, "UI", b"1.2.3\0"),
    Made(0x00081140, "SQ", items=[[Made(0x00081150, "UI", b"1.2\0")], []], defined=False),
    Made(0x00090010, "LO", b"MAKER "),
    Made(0x00091001, "UN", b"\xff\x4f\xff\x51"),
    Made(0x00091002, "UN", raw=bytes.fromhex("feff00e0 00000000")),
    Made(0x00100010, "PN", b"M\xfcller^A"),
]
BEHIND = [Made(0x7FE11001, "OB", b"behind"), Made(0xFFFCFFFC, "OB", bytes(6))]


@dataclass(frozen=True)
class Image:
    """Attributes of an image; `planar` is how its cells lie in uncompressed pixel data."""

    rows: int = 40
    columns: int = 33
    samples: int = 1
    allocated: int = 16
    stored: int = 12
    signed: bool = False
    frames: int | None = None
    planar: int | None = None
    photometric: str = "MONOCHROME2"
    high_bit: int | None = None

    def cells(self, seed: int = 0) -> np.ndarray:
        """Return noise over a gradient as cells of (frames, rows, columns, samples), signs extended into the unused bits."""
        shape = (self.frames or 1, self.rows, self.columns, self.samples)
        low = -(1 << (self.stored - 1)) if self.signed else 0
        noise = np.random.default_rng(seed).integers(0, 1 << self.stored, shape, dtype=np.int64)
        smooth = np.broadcast_to(np.linspace(0, (1 << self.stored) - 1, self.rows).astype(np.int64)[:, None, None], shape)
        return (np.where(noise % 3 == 0, noise, smooth) + low).astype(f"<u{self.allocated // 8}")

    def data_set(self, pixels: bytes, *, before: Sequence[Made] = (), behind: Sequence[Made] = ()) -> DataSet:
        """Return the data set in Explicit VR Little Endian with `pixels` as its Pixel Data, and more elements around."""
        data = encode([*before, *self._attributes(), Made(0x7FE00010, "OW", pixels + bytes(len(pixels) % 2)), *behind])
        return DataSet(data, EXPLICIT_LITTLE)

    def native(self, cells: np.ndarray) -> bytes:
        """Return the cells as they lie in uncompressed pixel data."""
        return (cells.transpose(0, 3, 1, 2) if self.planar else cells).tobytes()

    def _attributes(self) -> list[Made]:
        photometric = self.photometric.encode() + b" " * (len(self.photometric) % 2)
        frames = str(self.frames or "").encode()
        optional = [
            Made(0x00280006, "US", (self.planar,)) if self.planar is not None else None,
            Made(0x00280008, "IS", frames + b" " * (len(frames) % 2)) if self.frames else None,
        ]
        made = [
            Made(0x00280002, "US", (self.samples,)),
            Made(0x00280004, "CS", photometric),
            *(each for each in optional if each is not None),
            Made(0x00280010, "US", (self.rows,)),
            Made(0x00280011, "US", (self.columns,)),
            Made(0x00280100, "US", (self.allocated,)),
            Made(0x00280101, "US", (self.stored,)),
            Made(0x00280102, "US", (self.stored - 1 if self.high_bit is None else self.high_bit,)),
            Made(0x00280103, "US", (int(self.signed),)),
        ]
        return [Made(0x00280000, "UL", (len(encode(made)),)), *made]
