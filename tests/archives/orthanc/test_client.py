"""REST requests to a real Orthanc, and answers of a scripted one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
from pydantic import SecretStr

from gateway.archives.orthanc import Orthanc
from gateway.archives.orthanc.encodings import Encodings
from gateway.config.settings import RestTable, SourceTable
from gateway.core.errors import WebServiceError, WebServiceRefused
from tests.support import data
from tests.support.orthanc import Orthanc as Peer
from tests.support.orthanc import orthanc
from tests.support.web import Reply, site

STUDY = f"{data.UID_ROOT}.1.1"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    accounts = {"AuthenticationEnabled": True, "RegisteredUsers": {"gateway": "secret"}}
    with orthanc(tmp_path / "orthanc", credentials=("gateway", "secret"), **accounts) as running:
        running.upload(data.ct_series(tmp_path / "one", 3, rows=4))
        yield running


def client(peer: Peer, password: str = "secret") -> Orthanc:
    return Orthanc(RestTable(url=str(peer.rest.base_url), username="gateway", password=SecretStr(password)))


@pytest.mark.peers
def test_a_study_is_found_by_its_uid_counted_read_and_deleted(peer: Peer) -> None:
    with closing(client(peer)) as there:
        (study,) = there.lookup("Study", STUDY)
        (series,) = there.series_of(study)
        instances = there.instances_of(series.id)
        assert there.count_instances(study) == len(series.children) == len(instances) == 3
        file = io.BytesIO()
        there.fetch(instances[0].id, file)
        assert file.getvalue() == peer.file(instances[0].id)
        held = there.statistics()
        assert (held.studies, held.series, held.instances) == (1, 1, 3) and held.disk_bytes > 0
        assert there.delete("Study", study)
        assert not there.delete("Study", study)
        assert there.lookup("Study", STUDY) == () and there.series_of(study) == [] and there.count_instances(study) is None
        assert there.statistics().instances == 0


@pytest.mark.peers
def test_a_study_under_two_patient_ids_is_two_of_its_resources(peer: Peer, tmp_path: Path) -> None:
    (path,) = data.ct_series(tmp_path / "other", 1, rows=4)
    found = pydicom.dcmread(path)
    found.PatientID = "OTHER"
    found.save_as(path)
    peer.upload([path])
    with closing(client(peer)) as there:
        assert len(there.lookup("Study", STUDY)) == 2
        assert [study.uid("Study") for study in there.studies({"StudyDate": "20240229"})] == [STUDY, STUDY]


@pytest.mark.peers
def test_a_wrong_password_is_told_as_such(peer: Peer) -> None:
    with closing(client(peer, "wrong")) as there, pytest.raises(WebServiceRefused, match="username and password"):
        there.statistics()


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"TotalDiskSize": "many"}', b"no"])
def test_what_is_no_orthanc_is_told_as_such(body: bytes) -> None:
    with site(lambda _method, _path: Reply(body=body)) as there, closing(Orthanc(RestTable(url=there.url))) as asked:
        with pytest.raises(WebServiceError, match=there.url):
            asked.statistics()
        if body == b"[]":
            assert list(asked.studies({})) == [] and asked.lookup("Study", "1.2") == ()
        else:
            for ask in (lambda: list(asked.studies({})), lambda: asked.lookup("Study", "1.2"), lambda: asked.series_of("1")):
                with pytest.raises(WebServiceError, match=there.url):
                    ask()


def test_a_uid_that_is_none_is_empty() -> None:
    answer = b'[{"ID": "a", "Type": "Series", "MainDicomTags": {"SeriesInstanceUID": "1.*"}, "Instances": ["x"]}]'
    with site(lambda _method, _path: Reply(body=answer)) as there, closing(Orthanc(RestTable(url=there.url))) as asked:
        (series,) = asked.series_of("study")
    assert (series.id, series.uid("Series"), series.children) == ("a", "", ("x",))


@pytest.mark.peers
def test_modalities_for_which_it_transcodes_are_named(peer: Peer) -> None:
    for name, more in {"ours": {"AllowTranscoding": False}, "again": {}, "asked": {"AllowTranscoding": True}}.items():
        peer.add_modality(name, "GATEWAY", 11112, **more)
    peer.add_modality("other", "OTHER", 104)
    with closing(client(peer)) as there:
        assert there.transcodes_for("GATEWAY") == ("again", "asked")
        assert there.transcodes_for("NOBODY") == ()


@pytest.mark.peers
def test_what_instances_are_stored_as_is_told(peer: Peer) -> None:
    with closing(client(peer)) as there:
        told = there.encodings(STUDY)
        assert set(told) == set(peer.instances())
        assert set(told.values()) == {("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")}
        assert there.encodings("1.2.3.4") == {}
        assert there.transcodes_mixed() is (peer.rest.get("/system").json()["Version"] >= "1.12")


VERSIONS = {"1.10.1": False, "1.9": False, "1.12.7": True, "1.12.0": True, "2.0.0": True, "mainline": True}


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_that_transcode_are_known(version: str) -> None:
    body = f'{{"Version": "{version}"}}'.encode()
    with site(lambda _method, _path: Reply(body=body)) as there, closing(Orthanc(RestTable(url=there.url))) as asked:
        assert asked.transcodes_mixed() is VERSIONS[version]


def scripted(transcoding: bool, version: str, asked: list[str]) -> Callable[[str, str], Reply]:
    def answer(_method: str, path: str) -> Reply:
        asked.append(path.partition("?")[0])
        bodies = {
            "/system": {"Version": version},
            "/modalities": {"gateway": {"AET": "GATEWAY", "AllowTranscoding": transcoding}, "other": {"AET": "X"}},
            "/tools/lookup": [{"ID": "a", "Type": "Study"}],
            "/tools/bulk-content": [
                {
                    "ID": "i",
                    "MainDicomTags": {"SOPInstanceUID": "1.2.3"},
                    "Metadata": {"SopClassUid": "1.9", "TransferSyntax": "1.2.840.10008.1.2.4.50"},
                },
                {"ID": "j", "MainDicomTags": {"SOPInstanceUID": "../etc"}},
                "nonsense",
            ],
        }
        return Reply(body=json.dumps(bodies[asked[-1]]).encode())

    return answer


@pytest.mark.parametrize(("transcoding", "version"), [(True, "1.12.7"), (False, "1.12.7"), (True, "1.10.1")])
def test_an_orthanc_is_asked_for_encodings_only_where_it_may_transcode(transcoding: bool, version: str) -> None:
    asked: list[str] = []
    with site(scripted(transcoding, version, asked)) as there:
        table = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 4242, "rest": {"url": there.url}}
        encodings = Encodings({"archive": SourceTable.model_validate(table)}, "GATEWAY")
        told = [encodings("archive", "1.2"), encodings("archive", "1.2")]
    stored = {"1.2.3": ("1.9", "1.2.840.10008.1.2.4.50")}
    assert told == ([stored, stored] if transcoding and version == "1.12.7" else [{}, {}])
    assert asked.count("/system") == 1
    assert encodings("elsewhere", "1.2") == {}


def test_an_orthanc_that_does_not_answer_costs_no_study() -> None:
    with site(lambda _method, _path: Reply(status=500, body=b"")) as there:
        table = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 4242, "rest": {"url": there.url}}
        assert Encodings({"archive": SourceTable.model_validate(table)}, "GATEWAY")("archive", "1.2") == {}
