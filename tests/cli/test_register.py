import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.commands.register import OurAddress, _same, instructions, orthanc_modality, our_address
from gateway.config.settings import Settings
from gateway.core.errors import UsageError

OURS = OurAddress("gateway", "GATEWAY", "10.0.0.5", 11112, tls=False)


def settings(**listen: Any) -> Settings:
    source = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 4242}
    return Settings.model_validate({"listen": listen, "sources": {"archive": source}})


def test_a_source_is_told_the_address_that_this_machine_uses_towards_it() -> None:
    ours = our_address(settings(port=11112), settings().sources["archive"], None, "gateway")
    assert ours == OurAddress("gateway", "GATEWAY", "127.0.0.1", 11112, tls=False)


def test_an_address_that_we_listen_on_alone_is_the_one_to_tell() -> None:
    assert our_address(settings(host="127.0.0.7"), settings().sources["archive"], None, "gateway").host == "127.0.0.7"


def test_an_address_given_by_hand_wins() -> None:
    assert our_address(settings(), settings().sources["archive"], "gw.example", "gateway").host == "gw.example"


def test_a_source_on_tls_is_told_the_port_of_the_tls_listener(tmp_path: Path) -> None:
    tls = {"port": 2762, "certificate": "c", "key": "k", "ca": "a"}
    configured = settings(tls=tls)
    source = configured.sources["archive"].model_copy(update={"tls": object()})
    assert our_address(configured, source, None, "gateway") == OurAddress("gateway", "GATEWAY", "127.0.0.1", 2762, tls=True)
    assert our_address(configured, configured.sources["archive"], None, "gateway").port == 11112


def test_a_listener_on_any_free_port_cannot_be_registered() -> None:
    with pytest.raises(UsageError, match="fixed"):
        our_address(settings(port=0), settings().sources["archive"], None, "gateway")


def test_what_is_printed_for_orthanc_is_a_configuration_that_it_reads() -> None:
    entry = json.loads(dict(instructions(OURS))["Orthanc (configuration file)"])
    assert entry == {
        "DicomModalities": {"gateway": {"AET": "GATEWAY", "Host": "10.0.0.5", "Port": 11112, "AllowTranscoding": False}}
    }


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ({"AllowTranscoding": False, "AllowEcho": True}, True),
        ({}, True),
        ({"AllowTranscoding": True}, False),
        ({"AllowTranscoding": False, "Port": 104}, False),
        (None, False),
    ],
)
def test_an_orthanc_that_goes_on_transcoding_is_noticed(shown: dict[str, Any] | None, same: bool) -> None:
    wanted = orthanc_modality(OURS)
    entered = None if shown is None else {"AET": "GATEWAY", "Host": "10.0.0.5", "Port": 11112} | shown
    assert _same(entered, wanted) is same


def test_an_orthanc_is_told_to_use_tls() -> None:
    assert orthanc_modality(OurAddress("gateway", "GATEWAY", "h", 2762, tls=True))["UseDicomTls"] is True


def test_a_source_that_is_asked_by_c_get_needs_no_move_destination() -> None:
    printed = dict(instructions(OURS, by_get=True))
    assert printed["Any PACS"].startswith("nothing")
    assert "GATEWAY" in printed["Any PACS"]
    assert not [kind for kind in printed if "dcmqrscp" in kind]


def test_what_is_printed_for_dcmqrscp_is_a_host_table() -> None:
    assert "gateway = (GATEWAY, 10.0.0.5, 11112)" in dict(instructions(OURS))["dcmqrscp (dcmqrscp.cfg)"]
