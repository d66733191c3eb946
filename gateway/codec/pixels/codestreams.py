"""The headers of JPEG, JPEG-LS and JPEG 2000 codestreams, read before anybody decodes them. Pure.

Dimensions are known before a codec believes them, and a codestream that is cut off is known as such, because some decoders fill
what is missing with grey and call it a success. Nothing but `ValueError` is raised, whatever the bytes are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from gateway.dicom.syntaxes import (
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    J2K,
    J2K_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR,
    RLE_LOSSLESS,
)

_SOC_SIZ = b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "
_SOT, _COD, _CAP, _EOC = 0xFF90, 0xFF52, 0xFF50, b"\xff\xd9"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PADDING = b"\0\xff"
_SOF_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_SOS, _LSE = 0xDA, 0xF8


@dataclass(frozen=True, slots=True)
class Header:
    """The contents of a codestream's header; `signed` and `transformed` (between components, reversibly or not) are JPEG 2000's."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    transformed: bool = False
    reversible: bool = True


def jpeg2000(data: bytes) -> tuple[Header, bytes]:
    """Return the header of a JPEG 2000 or HTJ2K codestream, and the codestream itself without padding or the JP2 file around it.

    Raises:
        ValueError: it is none, it is cut off, or its components differ.
    """
    begin = data.find(_SOC_SIZ)
    if begin < 0 or (begin > 0 and not data.startswith(_JP2_START)):
        raise ValueError("no JPEG 2000 codestream")
    try:
        header, tiles = _main_header(data, begin)
        end = _end_of_tiles(data, tiles)
    except (struct.error, IndexError):
        raise ValueError("the JPEG 2000 codestream is cut off") from None
    return header, data[begin:end]


def _main_header(data: bytes, begin: int) -> tuple[Header, int]:
    xsiz, ysiz, xosiz, yosiz = struct.unpack_from(">4L", data, begin + 8)
    (components,) = struct.unpack_from(">H", data, begin + 40)
    sizes = [data[begin + 42 + 3 * index : begin + 45 + 3 * index] for index in range(components)]
    if not sizes or any(size != bytes((sizes[0][0], 1, 1)) for size in sizes):
        raise ValueError("the components of the JPEG 2000 codestream differ in size or depth")
    transformed, reversible = False, True
    position = begin + 2
    while (marker := struct.unpack_from(">H", data, position)[0]) != _SOT:
        if marker == _COD:
            transformed = data[position + 8] == 1
            reversible = data[position + 13] == 1
        position += 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])
    depth = sizes[0][0]
    return Header(ysiz - yosiz, xsiz - xosiz, components, (depth & 0x7F) + 1, depth > 0x7F, transformed, reversible), position


def _end_of_tiles(data: bytes, position: int) -> int:
    while data[position : position + 2] != _EOC:
        marker, _, _, length = struct.unpack_from(">HHHL", data, position)
        if marker != _SOT:
            raise ValueError("the JPEG 2000 codestream is damaged")
        if length == 0:  # the last tile-part reaches to the end of the codestream
            end = data.rfind(_EOC, position)
            if end < 0:
                raise ValueError("the JPEG 2000 codestream does not end")
            return end + 2
        if length < 14 or position + length + 2 > len(data):
            raise ValueError("the JPEG 2000 codestream is cut off")
        position += length
    return position + 2


def jpeg(data: bytes) -> tuple[Header, int]:
    """Return the header of a JPEG or JPEG-LS codestream, and which process it is (the second byte of its SOF marker).

    Raises:
        ValueError: it is none, or it does not end.
    """
    if not data.startswith(_JPEG_START):
        raise ValueError("no JPEG codestream")
    if not data.rstrip(_PADDING).endswith(_JPEG_END):
        raise ValueError("the JPEG codestream is cut off")
    position = 2
    try:
        while (marker := _marker(data, position)) not in _SOF_MARKERS:
            if marker == _SOS:
                raise ValueError("the JPEG codestream has no frame header")
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
        precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
    except (struct.error, IndexError):
        raise ValueError("the JPEG codestream is cut off") from None
    return Header(rows, columns, components, precision), marker


def _marker(data: bytes, position: int) -> int:
    if data[position] != 0xFF:
        raise ValueError("the JPEG codestream is damaged")
    return data[position + 1]


def fitting_syntaxes(beginning: bytes) -> tuple[str, ...]:
    """Return the transfer syntaxes that a frame may be in which begins with `beginning`, the exact one first; none where unknown.

    More than one where one allows for what another does: lossless codestreams where lossy ones may be (PS3.5 §A.4).
    """
    try:
        if beginning.startswith(_JPEG_START):
            return _jpeg_syntaxes(beginning)
        if beginning.startswith((_SOC_SIZ, _JP2_START)):
            return _jpeg2000_syntaxes(beginning)
    except (struct.error, IndexError, ValueError):
        return ()
    return (RLE_LOSSLESS,) if _is_rle(beginning) else ()


def _jpeg_syntaxes(data: bytes) -> tuple[str, ...]:
    position, precision, process = 2, 0, 0
    while True:
        marker = _marker(data, position)
        if marker in _SOF_MARKERS:
            process, precision = marker, data[position + 4]
        elif marker == _SOS:
            parameter = data[position + 5 + 2 * data[position + 4]]
            return _by_process(process, precision, parameter)
        elif marker == 0xFF:  # fill bytes (ISO/IEC 10918-1 §B.1.1.2)
            position += 1
            continue
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]


def _by_process(process: int, precision: int, parameter: int) -> tuple[str, ...]:
    """Return the transfer syntaxes of a SOF marker; `parameter` of its scan is the predictor, or NEAR in JPEG-LS."""
    match process:
        case 0xC0:
            return JPEG_BASELINE, JPEG_EXTENDED
        case 0xC1:
            return (JPEG_EXTENDED, JPEG_BASELINE) if precision == 8 else (JPEG_EXTENDED,)
        case 0xC3:
            return (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS) if parameter == 1 else (JPEG_LOSSLESS,)
        case 0xF7:
            return (JPEG_LS_NEAR,) if parameter else (JPEG_LS_LOSSLESS, JPEG_LS_NEAR)
    return ()


def _jpeg2000_syntaxes(data: bytes) -> tuple[str, ...]:
    begin = data.find(_SOC_SIZ)
    if begin < 0:
        return ()
    position, high_throughput = begin + 2, False
    while (marker := struct.unpack_from(">H", data, position)[0]) != _COD:
        if marker == _SOT:
            return ()
        high_throughput |= marker == _CAP
        position += 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])
    reversible = data[position + 13] == 1
    if high_throughput:
        return (HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K) if reversible else (HTJ2K,)
    return (J2K_LOSSLESS, J2K) if reversible else (J2K,)


def _is_rle(data: bytes) -> bool:
    """Tell whether a frame begins with a header of RLE (PS3.5 §G.5): how many segments, and where each begins."""
    if len(data) < 64:
        return False
    count, *offsets = struct.unpack_from("<16L", data)
    used, unused = offsets[:count], offsets[count:]
    return 1 <= count <= 15 and used[0] == 64 and not any(unused) and all(one < other for one, other in pairwise(used))
