"""All codecs come with the package, and none that is not under a permissive licence."""

import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gateway.codec.available import PACKAGES
from tests.support import comparing
from tests.support.data import real_file
from tests.support.dcmtk import storescp
from tests.support.gateway import Gateway, dicom_destination

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PERMISSIVE = ("MIT", "BSD")


def required() -> set[str]:
    return {Requirement(line).name for line in PROJECT["dependencies"]}


def test_codecs_are_dependencies_and_the_codecs_extra_stays_empty() -> None:
    assert set(PACKAGES) <= required()
    assert PROJECT["optional-dependencies"]["codecs"] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_codec_package_has_a_permissive_licence(name: str) -> None:
    found = metadata(name)
    said = [found.get("License-Expression"), found.get("License"), *(found.get_all("Classifier") or [])]
    assert any(licence in (line or "") for line in said for licence in PERMISSIVE)
    assert not any("GPL" in (line or "") for line in said)


def test_no_codec_under_the_gpl_is_required() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    assert "pylibjpeg-libjpeg" not in {Requirement(line).name for line in lines}
    assert not any(Requirement(line).extras & {"all", "libjpeg"} for line in lines)


@pytest.mark.peers("storescp")
@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
def test_a_compressed_file_reaches_an_uncompressed_only_destination(tmp_path: Path, name: str) -> None:
    with storescp(tmp_path / "scp", "+xe") as scp:
        table = dicom_destination(scp.port, ae_title="STORESCP", verify="status")
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"scp": table}})
        done = gateway.run("send", real_file(name), "--to", "scp")
        assert done.returncode == 0, done.stdout + done.stderr
        (arrived,) = scp.received().values()
        source, there = comparing.read(real_file(name)), comparing.read(arrived)
        assert there.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert there.SOPInstanceUID == source.SOPInstanceUID and len(there.PixelData) >= there.Rows * there.Columns
