"""TLS contexts: TLS 1.2 at least, both sides show a certificate, the peer's name is checked, failures say why."""

import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.config.settings import ListenTable, ListenTlsTable, Settings, TlsTable
from gateway.core.errors import ConfigurationError
from gateway.security import tls
from gateway.security.certificates import make, request
from tests.support.waiting import PATIENCE_S

DEADLINE_S = PATIENCE_S


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make(folder, [request("gateway", ("localhost",), ("127.0.0.1",), 100), request("orthanc-a", (), (), 10)])
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    make(folder, [request("gateway", ("localhost",), (), 100)])
    return folder


def acceptor(certs: Path, **changes: object) -> ssl.SSLContext:
    table = {"ca": certs / "ca.crt", "certificate": certs / "gateway.crt", "key": certs / "gateway.key", **changes}
    return tls.acceptor_context(ListenTlsTable.model_validate(table))


def requestor(certs: Path, **changes: object) -> ssl.SSLContext:
    table = {"ca": certs / "ca.crt", "certificate": certs / "orthanc-a.crt", "key": certs / "orthanc-a.key", **changes}
    return tls.requestor_context(TlsTable.model_validate(table))


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> tuple[str, str | None, bytes | None]:
    """Shake hands over a socket pair; return both sides' failures in words (or the version) and the client's certificate."""
    near, far = socket.socketpair()
    near.settimeout(DEADLINE_S)
    far.settimeout(DEADLINE_S)
    seen: dict[str, object] = {}

    def accept() -> None:
        try:
            with server.wrap_socket(near, server_side=True) as session:
                seen["server"], seen["certificate"] = session.version(), session.getpeercert(binary_form=True)
                session.sendall(b"x")
        except OSError as error:
            seen["server"] = tls.handshake_failure(error)
            near.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        with client.wrap_socket(far, server_hostname=name) as session:
            session.recv(1)
            outcome = session.version() or ""
    except OSError as error:
        outcome = tls.handshake_failure(error)
    finally:
        thread.join(DEADLINE_S)
        far.close()
    certificate = seen.get("certificate")
    assert certificate is None or isinstance(certificate, bytes)
    return outcome, str(seen.get("server")), certificate


def test_both_sides_authenticate_and_the_acceptor_sees_the_clients_names(certs: Path) -> None:
    outcome, _, certificate = handshake(acceptor(certs), requestor(certs))
    assert outcome == "TLSv1.3"
    assert certificate is not None
    assert "orthanc-a" in tls.certificate_names(certificate)


def test_tls_1_2_is_enough(certs: Path) -> None:
    client = requestor(certs)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(acceptor(certs), client)[0] == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_1_is_refused(certs: Path) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.load_verify_locations(certs / "ca.crt")
    outcome, server, _ = handshake(acceptor(certs), client)
    assert "TLS" not in outcome.split()[0]
    assert server == "the peer offers no TLS 1.2 or newer"


def test_a_name_that_the_certificate_does_not_have_is_refused(certs: Path) -> None:
    outcome, _, _ = handshake(acceptor(certs), requestor(certs), name="elsewhere.example")
    assert outcome.startswith("the peer's certificate is not trusted: Hostname mismatch")


def test_a_stranger_is_refused_by_both_sides(certs: Path, strangers: Path) -> None:
    stranger = {"certificate": strangers / "gateway.crt", "key": strangers / "gateway.key"}
    assert handshake(acceptor(certs, **stranger), requestor(certs))[0].startswith("the peer's certificate is not trusted")
    outcome, server, _ = handshake(acceptor(certs), requestor(certs, **stranger))
    assert server.startswith("the peer's certificate is not trusted") if server else False
    assert outcome == "the peer does not know the CA of our certificate"


def test_a_client_without_a_certificate_is_refused(certs: Path) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certs / "ca.crt")
    outcome, server, certificate = handshake(acceptor(certs), client)
    assert server == "the peer showed no certificate"
    assert outcome == "the peer requires a certificate and got none that it accepts"
    assert certificate is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the peer does not speak TLS on this port"),
        (b"", "closed the connection"),
        (None, "in time"),
    ],
)
def test_a_peer_that_does_not_speak_tls_is_named_so(certs: Path, answer: bytes | None, expected: str) -> None:
    near, far = socket.socketpair()
    far.settimeout(DEADLINE_S if answer is not None else 0.05)
    with near, far:
        if answer is not None:
            near.sendall(answer)
            near.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError) as raised:
            requestor(certs).wrap_socket(far, server_hostname="localhost")
    assert expected in tls.handshake_failure(raised.value)


def test_weak_and_unforward_ciphers_are_not_offered(certs: Path) -> None:
    for context in (acceptor(certs), requestor(certs)):
        names = [str(cipher["name"]) for cipher in context.get_ciphers()]
        assert names
        assert all(name.startswith(("TLS_", "ECDHE-", "DHE-")) and ("GCM" in name or "CHACHA20" in name) for name in names)


def broken(certs: Path, tmp_path: Path) -> dict[str, dict[str, Path]]:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    return {
        "do not belong together": {"key": certs / "gateway.key"},
        "no usable PEM": {"certificate": rubbish},
        "No such file": {"ca": tmp_path / "none.crt"},
    }


@pytest.mark.parametrize("expected", ["do not belong together", "no usable PEM", "No such file"])
def test_files_that_cannot_be_used_are_a_configuration_problem(certs: Path, tmp_path: Path, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as raised:
        requestor(certs, **broken(certs, tmp_path)[expected])
    assert raised.value.problems[0].key.startswith("tls.")


@pytest.fixture
def locked_key(certs: Path, tmp_path: Path) -> Path:
    key = serialization.load_pem_private_key((certs / "orthanc-a.key").read_bytes(), password=None)
    locked = tmp_path / "locked.key"
    encryption = serialization.BestAvailableEncryption(b"sesame")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return locked


def test_a_key_may_have_a_password_and_is_never_asked_for_on_the_terminal(certs: Path, locked_key: Path) -> None:
    requestor(certs, key=locked_key, key_password="sesame")
    for wrong in ({}, {"key_password": "wrong"}):
        with pytest.raises(ConfigurationError, match=r"does not open.*key_password"):
            requestor(certs, key=locked_key, **wrong)


def settings(certs: Path) -> Settings:
    table = {"ca": certs / "ca.crt", "certificate": certs / "gateway.crt", "key": certs / "gateway.key"}
    peer = {"ae_title": "A", "host": "h", "tls": {**table, "certificate": certs / "orthanc-a.crt", "key": certs / "orthanc-a.key"}}
    return Settings(listen=ListenTable(tls=ListenTlsTable.model_validate(table)), sources={"a": peer})  # type: ignore[dict-item]


def test_certificates_in_use_are_listed_once_soonest_to_expire_first(certs: Path) -> None:
    found = tls.configured_certificates(settings(certs))
    assert [certificate.path.name for certificate in found] == ["orthanc-a.crt", "gateway.crt", "ca.crt"]
    assert found[0].key == "sources.a.tls.certificate"
    assert [certificate.path.name for certificate in tls.expiring(settings(certs), datetime.now(UTC))] == ["orthanc-a.crt"]


def test_every_context_is_checked_together(certs: Path, tmp_path: Path) -> None:
    tls.check_contexts(settings(certs))
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("")
    listen = {"ca": rubbish, "certificate": rubbish, "key": rubbish}
    peer = {"kind": "dicom", "ae_title": "A", "host": "h", "port": 1, "tls": listen}
    bad = Settings.model_validate({"listen": {"tls": listen}, "destinations": {"a": peer}})
    with pytest.raises(ConfigurationError) as raised:
        tls.check_contexts(bad)
    assert [problem.key for problem in raised.value.problems] == ["listen.tls.ca", "destinations.a.tls.ca"]


def test_a_file_without_a_certificate_has_no_expiry(tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_text("none")
    listen = {"ca": tmp_path / "x.crt", "certificate": tmp_path / "x.crt", "key": tmp_path / "x.crt"}
    with pytest.raises(ConfigurationError, match="no certificate"):
        tls.expiring(Settings.model_validate({"listen": {"tls": listen}}))
