"""``gateway certs``: a private CA, certificates good in both directions, keys that nobody else reads, nothing overwritten."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.core.errors import ConfigurationError, UsageError
from gateway.security import tls
from gateway.security.certificates import Issued, make, request


def make_for(folder: Path, *subjects: str, replace: bool = False, days: int = 100) -> list[Issued]:
    return make(folder, [request(subject, (), (), days) for subject in subjects], replace=replace)


def test_keys_are_private_and_certificates_readable(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    make_for(folder, "gateway")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "gateway.crt": 0o644, "gateway.key": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_names_a_certificate_is_good_for_itself_and_this_machine(tmp_path: Path) -> None:
    (issued,) = make_for(tmp_path, "orthanc-a")
    assert issued.names[0] == "orthanc-a"
    assert {"localhost", "127.0.0.1", "::1"} < set(issued.names)
    certificate = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    assert set(issued.names) == set(tls.certificate_names(certificate.public_bytes(Encoding.DER)))


def test_names_that_are_given_replace_the_defaults(tmp_path: Path) -> None:
    asked = request("orthanc-d", ("pacs.example.org",), ("192.0.2.7",), 100)
    assert (asked.names, asked.addresses) == (("orthanc-d", "pacs.example.org"), ("192.0.2.7",))


def test_the_same_ca_signs_certificates_that_are_added_later(tmp_path: Path) -> None:
    make_for(tmp_path, "gateway")
    authority = (tmp_path / "ca.crt").read_bytes()
    (later,) = make_for(tmp_path, "orthanc-d")
    assert (tmp_path / "ca.crt").read_bytes() == authority
    x509.load_pem_x509_certificate(later.certificate.read_bytes()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority)
    )


def test_nothing_is_overwritten_unless_asked_and_the_ca_never(tmp_path: Path) -> None:
    make_for(tmp_path, "gateway")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"gateway.crt.*--force"):
        make_for(tmp_path, "orthanc-a", "gateway")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    make_for(tmp_path, "gateway", replace=True)
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {name for name, content in after.items() if content != before[name]} == {"gateway.crt", "gateway.key"}


def test_a_certificate_never_outlives_its_ca(tmp_path: Path) -> None:
    (issued,) = make_for(tmp_path, "gateway", days=36500)
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    assert issued.expires <= ca.not_valid_after_utc


@pytest.mark.parametrize("subject", ["ca", "../evil", "", "a/b", "-x", "x" * 64, "two words"])
def test_a_subject_must_be_fit_for_a_file_name(subject: str) -> None:
    with pytest.raises(UsageError, match="cannot name a certificate"):
        request(subject, (), (), 10)


def test_an_address_must_be_an_address_and_a_name_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no IP address"):
        request("x", (), ("host.example",), 10)
    with pytest.raises(UsageError, match="no DNS name"):
        make(tmp_path, [request("x", ("höst",), (), 10)])
    assert list(tmp_path.iterdir()) == []


def test_half_a_ca_is_a_problem_and_is_not_replaced(tmp_path: Path) -> None:
    make_for(tmp_path, "gateway")
    (tmp_path / "ca.key").unlink()
    with pytest.raises(ConfigurationError, match=r"ca.crt without it"):
        make_for(tmp_path, "orthanc-a")
    assert not (tmp_path / "ca.key").exists()


def test_a_key_of_another_ca_is_a_problem(tmp_path: Path) -> None:
    make_for(tmp_path / "one", "gateway")
    make_for(tmp_path / "two", "gateway")
    (tmp_path / "one" / "ca.key").write_bytes((tmp_path / "two" / "ca.key").read_bytes())
    with pytest.raises(ConfigurationError, match="not the CA's"):
        make_for(tmp_path / "one", "orthanc-a")


def test_a_certificate_is_warned_about_thirty_days_ahead() -> None:
    now = datetime.now(UTC)
    certificate = tls.Certificate(Path("gateway.crt"), "listen.tls.certificate", ("gateway",), now + timedelta(days=31))
    assert not certificate.needs_attention(now)
    assert certificate.needs_attention(now + timedelta(days=2))
    assert certificate.remaining(now + timedelta(days=32)) < timedelta(0)
