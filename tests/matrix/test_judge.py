"""The judge of the matrix notices what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from gateway.codec.workers.pool import Pool
from gateway.core.domain import Mode
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, J2K_LOSSLESS
from tests.matrix.judge import Judge
from tests.matrix.running import Cell, rounds
from tests.support import data
from tests.support.data import real_file
from tests.support.transcoding import DataSet, bring, of_file, of_pydicom

LOSSY = "pixels that may be lossy are not decompressed without allow_decompressed_lossy"


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as workers:
        yield workers


def delivered(name: str, made: DataSet, folder: Path, peer: str = "j2k") -> Cell:
    return Cell(real_file(name), peer, Mode.AS_IS, "verified", "", made.write(folder))


def held(name: str, reason: str, peer: str = "j2k") -> Cell:
    return Cell(real_file(name), peer, Mode.AS_IS, "held", reason, None)


def test_what_was_transcoded_well_is_no_problem(pool: Pool, tmp_path: Path) -> None:
    made = bring(of_file(real_file("CT_small.dcm")), J2K_LOSSLESS, pool)
    (tmp_path / "judge").mkdir()
    assert Judge(tmp_path / "judge").problem(delivered("CT_small.dcm", made, tmp_path)) == ""


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("PatientID", "somebody else", "(0010,0020) changed"),
        ("LossyImageCompression", "01", "(0028,2110) added"),
        ("PhotometricInterpretation", "MONOCHROME1", "are said to be MONOCHROME1"),
        ("PixelData", None, "pixels differ"),
    ],
)
def test_what_is_not_the_same_any_more_is_a_problem(tmp_path: Path, keyword: str, value: str | None, said: str) -> None:
    dataset = pydicom.dcmread(real_file("MR_small_implicit.dcm"))
    pixels = dataset.PixelData
    setattr(dataset, keyword, value or pixels[:-2] + bytes([pixels[-2] ^ 1, pixels[-1]]))
    made = of_pydicom(dataset, EXPLICIT_LITTLE)
    (tmp_path / "judge").mkdir()
    assert said in Judge(tmp_path / "judge").problem(delivered("MR_small_implicit.dcm", made, tmp_path))


def test_what_went_out_as_it_was_has_to_be_the_same_bytes(tmp_path: Path) -> None:
    source = of_file(real_file("CT_small.dcm"))
    assert Judge(tmp_path).problem(delivered("CT_small.dcm", source, tmp_path)) == ""
    changed = DataSet(source.data[:-1] + bytes([source.data[-1] ^ 1]), source.syntax)
    assert "not byte for byte" in Judge(tmp_path).problem(delivered("CT_small.dcm", changed, tmp_path))


def test_what_was_lossy_may_not_be_opened(pool: Pool, tmp_path: Path) -> None:
    made = bring(of_file(real_file("JPGExtended.dcm")), EXPLICIT_LITTLE, pool, allow_decompressed_lossy=True)
    assert "opened" in Judge(tmp_path).problem(delivered("JPGExtended.dcm", made, tmp_path, "uncompressed"))


def test_a_reason_explains_only_what_it_is_about(tmp_path: Path) -> None:
    lossy = f"destination accepts no CT Image Storage in transfer syntax JPEG 2000: {LOSSY}"
    problem = Judge(tmp_path).problem
    assert problem(held("693_J2KI.dcm", lossy)) == ""
    assert "not named" in problem(held("693_J2KI.dcm", lossy, "orthanc"))
    assert "not named" in problem(held("693_J2KR.dcm", lossy))
    assert "not named" in problem(held("693_J2KI.dcm", "no answer"))


def test_what_is_under_way_or_lost_or_held_and_there_is_a_problem(tmp_path: Path) -> None:
    path = real_file("CT_small.dcm")
    for state, received in [("deferred", None), ("pending", None), ("verified", None), ("held", path)]:
        assert Judge(tmp_path).problem(Cell(path, "j2k", Mode.AS_IS, state, "", received)) != ""


def test_no_round_has_a_sop_instance_uid_twice() -> None:
    found = rounds(data.sendable())
    assert sorted(path for some in found for path in some) == sorted(data.sendable())
    for some in found:
        uids = [data.identity(path)[2] for path in some]
        assert len(uids) == len(set(uids))
