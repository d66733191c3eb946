"""The table of transfer syntaxes agrees with PS3.5; pydicom's dictionary is the second opinion."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom.uid import UID, UID_dictionary

from gateway.codec import available
from gateway.codec.policy import COMPRESSED_TARGETS
from gateway.dicom import syntaxes

_KNOWN_TO_PYDICOM = [uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"]
_NOT_FOR_INSTANCES = {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.20"}
_VIDEO_OVER_IP = "1.2.840.10008.1.2.7."


@pytest.mark.parametrize("known", syntaxes.known(), ids=lambda known: known.uid)
def test_encoding_is_what_pydicom_knows(known: syntaxes.TransferSyntax) -> None:
    uid = UID(known.uid)
    if not uid.is_transfer_syntax or "JPIP" in known.name:
        return
    assert (known.explicit, known.big_endian, known.deflated) == (not uid.is_implicit_VR, not uid.is_little_endian, uid.is_deflated)
    assert known.encapsulated == uid.is_encapsulated


def test_every_transfer_syntax_of_instances_is_listed() -> None:
    listed = {known.uid for known in syntaxes.known()}
    missing = [uid for uid in _KNOWN_TO_PYDICOM if uid not in listed | _NOT_FOR_INSTANCES and not uid.startswith(_VIDEO_OVER_IP)]
    assert missing == []


def test_lossy_is_whatever_may_have_lost_something() -> None:
    lossless = {known.uid for known in syntaxes.known() if known.lossless}
    lossy = {syntaxes.JPEG_BASELINE, syntaxes.JPEG_EXTENDED, syntaxes.JPEG_LS_NEAR, syntaxes.J2K, syntaxes.HTJ2K}
    assert not lossy & lossless
    assert {syntaxes.JPEG_LOSSLESS_SV1, syntaxes.J2K_LOSSLESS, syntaxes.RLE_LOSSLESS, syntaxes.HTJ2K_LOSSLESS_RPCL} <= lossless


def test_the_unknown_is_taken_for_lossy_and_cannot_be_decoded() -> None:
    unknown = syntaxes.syntax("1.2.3.4")
    assert unknown.encapsulated
    assert not unknown.lossless
    assert unknown.uid not in available.capabilities().decodable


def test_the_codecs_are_not_loaded_where_they_must_not_run() -> None:
    code = (
        "import sys; from gateway.codec import available, transcode; available.capabilities();"
        "heavy = ('gateway.codec.workers.engines', 'gateway.codec.workers.work', 'imagecodecs');"
        "sys.exit(any(name in sys.modules for name in heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_codec_packages_are_told_without_loading_them() -> None:
    code = (
        "import sys; from gateway.codec.available import codec_versions; print(*codec_versions().values());"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'imagecodecs', 'jpeg_ls', 'openjpeg', 'pylibjpeg', 'rle')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0
    assert len([version for version in done.stdout.split() if version[0].isdigit()]) == len(available.PACKAGES)


def test_everything_lossless_can_be_decoded_and_all_targets_encoded() -> None:
    can = available.capabilities()
    openable = {each.uid for each in syntaxes.known() if each.coding is not syntaxes.Coding.OTHER}
    assert openable <= can.decodable
    assert set(COMPRESSED_TARGETS) == can.encodable
