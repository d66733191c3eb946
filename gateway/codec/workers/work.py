"""One frame's work, done in a worker process: decode, encode, and prove."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from gateway.codec.pixels.attributes import PixelDescription
from gateway.codec.workers import engines
from gateway.codec.workers.engines import Cells
from gateway.codec.workers.order import Order
from gateway.core.errors import NotTranscodable, PixelsDiffer
from gateway.dicom.syntaxes import syntax


def do(order: Order, data: bytes) -> bytes:
    """Return what one frame, given as the bytes `data` of its codestream or its cells, becomes.

    Raises:
        NotTranscodable: the frame is not what the data set says, or the target cannot hold it.
        PixelsDiffer: what was encoded does not decode to what went in.
        Exception: whatever the codec raises.
    """
    native = syntax(order.source).native
    cells = engines.native(data, order.pixel) if native else engines.decode(data, order.pixel, order.source)
    if order.digest:
        return _digest(cells, order.pixel)
    if syntax(order.target).native:
        return engines.layout(cells, order.pixel)
    values = _values(cells, order.pixel)
    encoded = _encoded(values, order)
    _prove(encoded, values, order)
    return encoded


def _digest(cells: Cells, pixel: PixelDescription) -> bytes:
    """Return a digest of what the cells show: sample by sample, whatever bits that say nothing are filled with."""
    try:
        values = _values(cells, pixel)
    except NotTranscodable:
        values = np.ascontiguousarray(cells)
    return hashlib.blake2b(values.tobytes()).digest()


def _encoded(values: Cells, order: Order) -> bytes:
    try:
        return engines.encode(values, order.made, order.target)
    except (RuntimeError, ValueError) as error:
        raise NotTranscodable(f"the encoder of {syntax(order.target).name} refuses it: {error}") from error


def _values(cells: Cells, pixel: PixelDescription) -> Cells:
    """Return `cells` with unused bits as the codecs want them; only those that say nothing may change.

    Bits above Bits Stored may be zero or the sign (PS3.5 §8.1.1). Anything else there, as overlays once were, would be lost.
    """
    cells = np.ascontiguousarray(cells)
    if pixel.bits_stored == pixel.bits_allocated:
        return cells
    values = engines.sign_extended(cells, pixel.bits_stored) if pixel.signed else cells
    unused = cells >> cells.dtype.type(pixel.bits_stored)
    if unused.any() and (not pixel.signed or not np.array_equal(values, cells)):
        raise NotTranscodable(f"the bits above the {pixel.bits_stored} that are stored hold something, an overlay maybe")
    return values


def _prove(encoded: bytes, values: Cells, order: Order) -> None:
    pixel = replace(order.pixel, photometric=order.after)
    try:
        decoded = engines.decode(encoded, pixel, order.target)
    except (NotTranscodable, RuntimeError, ValueError) as error:
        raise PixelsDiffer(f"what was encoded as {syntax(order.target).name} cannot be decoded: {error}") from error
    if not np.array_equal(decoded, values):
        raise PixelsDiffer(f"what was encoded as {syntax(order.target).name} does not decode to the same pixels")
