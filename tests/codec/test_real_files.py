"""Real files in every transfer syntax that they can be brought into: pixels as independent readers see them, all else untouched."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gateway.codec.workers.pool import Pool
from gateway.core.errors import CodecError
from gateway.dicom.syntaxes import (
    DEFLATED,
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LITTLE,
    J2K_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    syntax,
)
from tests.support import judging
from tests.support.data import head, real_file, real_images
from tests.support.transcoding import DataSet, bring, of_file

_TARGETS = (EXPLICIT_LITTLE, J2K_LOSSLESS, IMPLICIT_LITTLE, HTJ2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS, DEFLATED)

_FILE_REASONS = {
    "J2K_pixelrep_mismatch.dcm": "disagree about signs",
    "JPEG2000-embedded-sequence-delimiter.dcm": "rows, columns and components",
    "MR_truncated.dcm": "longer than what it stands in",
    "SC_rgb_jpeg.dcm": "not encoded as its transfer syntax says",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "ends within an element",
    "rtplan_truncated.dcm": "longer than what it stands in",
    "rtdose_expb.dcm": "readers understand in two ways",
    "rtdose_expb_1frame.dcm": "readers understand in two ways",
}
"""Files that are brought into no other transfer syntax, and why."""

_PIXEL_REASONS = {
    "MR_small_padded.dcm": "8320 bytes where 8192 belong",
    "badVR.dcm": "Number of Frames",
    "mlut_18.dcm": "an overlay maybe",
    "nested_priv_SQ.dcm": "absent or no number",
}
"""Files whose pixels are not compressed, and why."""

_REFUSALS = re.compile(r"cannot hold (32 bits stored|one-bit|uncompressed YBR_FULL_422)|no Pixel Data")
"""Why a file of a kind is not compressed."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", _TARGETS, ids=lambda uid: syntax(uid).name)
def test_every_real_file(pool: Pool, tmp_path: Path, target: str) -> None:
    problems = []
    for path in real_images():
        source = of_file(path)
        if source.syntax in ("", target):
            continue
        problem = _problem(path, source, target, pool, tmp_path)
        if problem:
            problems.append(f"{path.name} ({syntax(source.syntax).name}): {problem}")
    assert problems == []


_SAMPLE = (
    "CT_small.dcm",
    "MR_small_bigendian.dcm",
    "SC_rgb_rle.dcm",
    "US1_J2KR.dcm",
    "color-pl.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
)


@pytest.mark.parametrize("target", [EXPLICIT_LITTLE, J2K_LOSSLESS], ids=lambda uid: syntax(uid).name)
@pytest.mark.parametrize("name", _SAMPLE)
def test_some_real_files(pool: Pool, tmp_path: Path, name: str, target: str) -> None:
    path = real_file(name)
    source = of_file(path)
    assert source.syntax == target or not _problem(path, source, target, pool, tmp_path)


def _problem(path: Path, source: DataSet, target: str, pool: Pool, folder: Path) -> str:
    """Return what is wrong with `path` once it is brought into `target`; empty where all is well."""
    if target == DEFLATED and source.syntax == EXPLICIT_LITTLE:
        return "" if bring(bring(source, target, pool), EXPLICIT_LITTLE, pool) == source else "not inflated as it was deflated"
    expected = _FILE_REASONS.get(path.name) or (_PIXEL_REASONS.get(path.name) if syntax(target).encapsulated else None)
    try:
        made = bring(source, target, pool, allow_decompressed_lossy=True)
    except CodecError as error:
        fine = re.search(expected, str(error)) if expected else syntax(target).encapsulated and _REFUSALS.search(str(error))
        return "" if fine else f"not transcoded: {error}"
    if expected and not (path.name == "J2K_pixelrep_mismatch.dcm" and target == J2K_LOSSLESS):
        return f"transcoded, though {expected}"
    return judging.elements_differ(source.part10(), made.part10()) or judging.pixels_differ(path, source, made, folder)


@pytest.mark.parametrize("name", ["693", "MR2", "RG1", "RG3", "US1"])
def test_reference_pairs_have_the_same_pixels(pool: Pool, tmp_path: Path, name: str) -> None:
    uncompressed, compressed = real_file(f"{name}_UNCR.dcm"), real_file(f"{name}_J2KR.dcm")
    expected = judging.by_gdcm(compressed)
    made = judging.by_gdcm(bring(of_file(uncompressed), J2K_LOSSLESS, pool).write(tmp_path))
    back = judging.by_gdcm(bring(of_file(compressed), EXPLICIT_LITTLE, pool).write(tmp_path))
    bits = head_bits(uncompressed)
    assert expected is not None
    assert made is not None
    assert back is not None
    assert judging.same(expected, made, bits)
    assert judging.same(expected, back, bits)


@pytest.mark.slow
@pytest.mark.peers("dcmdrle", "dcmdjpls")
@pytest.mark.parametrize(("target", "tool"), [(RLE_LOSSLESS, "dcmdrle"), (JPEG_LS_LOSSLESS, "dcmdjpls")])
@pytest.mark.parametrize("name", ["693", "MR2", "RG1", "RG3", "US1"])
def test_dcmtk_reads_from_ours_the_pixels_of_the_reference_pair(
    pool: Pool, tmp_path: Path, name: str, target: str, tool: str
) -> None:
    uncompressed, compressed = real_file(f"{name}_UNCR.dcm"), real_file(f"{name}_J2KR.dcm")
    expected = judging.by_gdcm(compressed)
    assert expected is not None
    for source in (uncompressed, compressed):
        read = _by_tool([tool], bring(of_file(source), target, pool).write(tmp_path), tmp_path)
        mask = (1 << read.BitsStored) - 1
        cells = read.pixel_array.reshape(expected.cells.shape).astype(np.int64)
        assert np.array_equal(cells & mask, expected.cells.astype(np.int64) & mask)


def head_bits(path: Path) -> int:
    assert head(path) is not None
    return int(pydicom.dcmread(path, stop_before_pixels=True).BitsStored)


def _by_tool(tool: list[str], made: Path, folder: Path) -> pydicom.FileDataset:
    result = folder / "by_tool.dcm"
    subprocess.run([*tool, str(made), str(result)], check=True, timeout=60, capture_output=True)
    return pydicom.dcmread(result)


@pytest.mark.peers("dcmdrle", "dcmdjpls")
@pytest.mark.parametrize(("target", "tool"), [(RLE_LOSSLESS, "dcmdrle"), (JPEG_LS_LOSSLESS, "dcmdjpls")])
@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb_16bit.dcm", "color-px.dcm", "emri_small.dcm", "SC_rgb_2frame.dcm"]
)
def test_dcmtk_reads_ours(pool: Pool, tmp_path: Path, name: str, target: str, tool: str) -> None:
    source = of_file(real_file(name))
    read = _by_tool([tool], bring(source, target, pool).write(tmp_path), tmp_path)
    assert np.array_equal(read.pixel_array, source.read().pixel_array)


@pytest.mark.peers("dcmdrle", "dcmdjpeg", "dcmdjpls")
@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("SC_rgb_rle_16bit.dcm", "dcmdrle"),
        ("rtdose_rle.dcm", "dcmdrle"),
        ("JPEG-LL.dcm", "dcmdjpeg"),
        ("SC_rgb_jpeg_gdcm.dcm", "dcmdjpeg"),
        ("emri_small_jpeg_ls_lossless.dcm", "dcmdjpls"),
    ],
)
def test_dcmtk_sees_in_the_source_what_we_write(pool: Pool, tmp_path: Path, name: str, tool: str) -> None:
    source = of_file(real_file(name))
    ours = bring(source, EXPLICIT_LITTLE, pool).read()
    assert np.array_equal(_by_tool([tool], source.write(tmp_path), tmp_path).pixel_array, ours.pixel_array)


@pytest.mark.peers("gdcmconv")
@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "SC_rgb_16bit.dcm", "US1_UNCR.dcm", "OBXXXX1A_2frame.dcm", "693_UNCR.dcm", "vlut_04.dcm"]
)
def test_gdcm_reads_our_jpeg_2000(pool: Pool, tmp_path: Path, name: str) -> None:
    source = of_file(real_file(name))
    read = _by_tool(["gdcmconv", "--raw"], bring(source, J2K_LOSSLESS, pool).write(tmp_path), tmp_path)
    assert shutil.which("gdcmconv")
    before = source.read()
    assert read.PhotometricInterpretation == before.PhotometricInterpretation
    mask = (1 << before.BitsStored) - 1
    assert np.array_equal(read.pixel_array.astype(np.int64) & mask, before.pixel_array.astype(np.int64) & mask)
