"""Reading a deflated data set from front to back (PS3.5 §A.5), with memory for a few chunks whatever it inflates to. Pure."""

from __future__ import annotations

import zlib

from gateway.dicom.elements import Reader

MAX_INFLATED_BYTES = 256 * 1024 * 1024
"""The bytes of a deflated data set that are inflated to find routing's elements: a second's work, and more than precedes them."""

ENDLESS = "the deflated data set does not end"
_CHUNK = 64 * 1024


class Inflating:
    """A `Reader` of the data set that another one gives deflated. Bytes further back than the last chunk cannot be read again.

    `problem` says in words why it gives less than there is, and is empty where it does not.
    """

    def __init__(self, read: Reader) -> None:
        self.problem = ""
        self._read = read
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._taken = 0
        self._start = 0
        self._kept = b""

    def __call__(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` of the data set; fewer at its end, or where there is a problem."""
        while self._start + len(self._kept) < offset + size and (more := self._inflate()):
            # The bytes kept are those that were asked for, and a chunk before them.
            passed = min(len(self._kept), max(0, offset - _CHUNK - self._start))
            self._start += passed
            self._kept = self._kept[passed:] + more
        begin = offset - self._start
        return self._kept[begin : begin + size] if begin >= 0 else b""

    def _inflate(self) -> bytes:
        while not self._stream.eof and not self.problem:
            if self._start + len(self._kept) >= MAX_INFLATED_BYTES:
                self.problem = f"more than {MAX_INFLATED_BYTES} bytes, inflated, stand before what is looked for"
                break
            data = self._stream.unconsumed_tail
            if not data:
                data = self._read(self._taken, _CHUNK)
                self._taken += len(data)
            try:
                made = self._stream.decompress(data, _CHUNK)
            except zlib.error:
                self.problem = "it is not deflated as its transfer syntax says"
                break
            if made:
                return made
            if not data:
                self.problem = ENDLESS
        return b""
