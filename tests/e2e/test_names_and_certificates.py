"""With ``accept = "any"`` whoever calls is taken, but not in the name of a source that has to show a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import TestCA
from tests.support.dcmtk import storescu
from tests.support.gateway import Gateway, arrivals, folder_destination
from tests.support.ports import HOST, free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.peers("storescu")


def test_a_name_with_a_certificate_is_nobody_elses(tmp_path: Path, ca: TestCA, ct_series: Any) -> None:
    secure, files = free_port(), ct_series(1)
    gateway = Gateway(tmp_path / "gateway")
    gateway.write(
        listen={"accept": "any", "tls": {"port": secure, **ca.issue("gateway")}},
        sources={
            "pacs": {"ae_title": "PACS", "host": HOST, "certificate_name": "pacs.example"},
            "plain": {"ae_title": "MODALITY", "host": HOST},
        },
        destinations={"folder": folder_destination(tmp_path / "out")},
    )
    calls = {
        "its name in plain": (gateway.port, "PACS", None, False),
        "its name, padded, in plain": (gateway.port, "PACS ", None, False),
        "its name with another certificate": (secure, "PACS", ca.issue("modality"), False),
        "its name with its certificate": (secure, "PACS", ca.issue("pacs.example"), True),
        "another name with its certificate": (secure, "SOMEBODY", ca.issue("pacs.example"), True),
        "another name in plain": (gateway.port, "SOMEBODY", None, True),
        "a source without a certificate in plain": (gateway.port, "MODALITY", None, True),
        "a source without a certificate over TLS": (secure, "MODALITY", ca.issue("modality"), True),
    }
    came = {}
    with gateway.serving():
        for what, (port, name, shown, taken) in calls.items():
            before = arrivals(gateway)
            done = storescu(port, *files, calling_ae=name, tls=shown, check=False)
            came[what] = done.returncode == 0
            if taken:
                wait_until(lambda before=before: arrivals(gateway) == before + 1, what)
    assert came == {what: taken for what, (*_, taken) in calls.items()}
    assert arrivals(gateway) == sum(came.values())
