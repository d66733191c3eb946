"""A private certificate authority for DICOM over TLS: makes the CA, signs certificates, writes PEM files.

A certificate serves both directions (server and client), because every peer here is requestor and acceptor. Keys are RSA,
the one key type that every BCP 195 suite of PS3.15 §B.12 works with, and are written 0600 and never over an existing file
unless that is asked for. The CA's files are ``ca.crt`` and ``ca.key``; another peer's certificate can be signed later.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.core.errors import ConfigurationError, Problem, UsageError
from gateway.core.files import PUBLIC, using, write_file

CA = "ca"
CA_DAYS = 3650
CA_KEY_BITS = 3072
KEY_BITS = 2048
BACKDATED = timedelta(minutes=10)
"""The time by which `not before` lies back, for peers whose clock is behind."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Authority:
    """A CA's certificate and private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey


@dataclass(frozen=True)
class Request:
    """A certificate to make: whose (the name of its files), with which DNS names and addresses, and for how long."""

    subject: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    days: int


@dataclass(frozen=True)
class Issued:
    """A certificate that was made and written."""

    certificate: Path
    key: Path
    names: tuple[str, ...]
    expires: datetime


def request(subject: str, names: Sequence[str], addresses: Sequence[str], days: int) -> Request:
    """Make the request for `subject`: with the names given, else with those under which this machine and compose know it.

    Raises UsageError where a name or an address is none.
    """
    if not _FILE_NAME.fullmatch(subject) or subject == CA:
        raise UsageError(f"{subject!r} cannot name a certificate: letters, digits, dot, dash and underscore, and not {CA!r}")
    if not names and not addresses:
        names, addresses = (socket.gethostname(), "localhost"), ("127.0.0.1", "::1")
    for address in addresses:
        _address(address)
    return Request(subject, tuple(dict.fromkeys((subject, *names))), tuple(dict.fromkeys(addresses)), days)


def _address(text: str) -> x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError as error:
        raise UsageError(f"{text!r} is no IP address (--address); names go with --name") from error


def _dns_name(text: str) -> x509.DNSName:
    try:
        return x509.DNSName(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no DNS name (--name); write it in ASCII") from error


def make(folder: Path, requests: Sequence[Request], *, replace: bool = False) -> list[Issued]:
    """Sign and write the certificates asked for in `folder`, with its CA, which is made where there is none.

    `replace` permits writing over certificates that exist; the CA is never replaced. Raises UsageError before anything is
    written where a file is in the way, ConfigurationError where the CA's files cannot be used, FileUnusable where nothing can be
    written.
    """
    in_the_way = [path for asked in requests for path in _paths(folder, asked.subject) if path.exists()]
    if in_the_way and not replace:
        raise UsageError(
            f"{', '.join(str(path) for path in in_the_way)}: there already; --force replaces certificates (never the CA)"
        )
    certificates = [(asked, _alternative_names(asked)) for asked in requests]
    with using(folder, "cannot write certificates"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _authority(folder)
        return [_issue(folder, authority, asked, names) for asked, names in certificates]


def _paths(folder: Path, subject: str) -> tuple[Path, Path]:
    return folder / f"{subject}.crt", folder / f"{subject}.key"


def _authority(folder: Path) -> Authority:
    certificate, key = _paths(folder, CA)
    if certificate.exists() != key.exists():
        missing, there = (key, certificate) if certificate.exists() else (certificate, key)
        raise ConfigurationError([Problem(str(missing), CA, f"{there.name} without it", "both files of the CA, or neither")])
    if certificate.exists():
        return _read_authority(certificate, key)
    authority = _new_authority(datetime.now(UTC))
    _write_pair(authority.certificate, authority.key, certificate, key)
    return authority


def _read_authority(certificate: Path, key: Path) -> Authority:
    try:
        signed = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            [Problem(str(key), CA, "files that cannot be read", "a CA in PEM format, its key without a password")]
        ) from error
    if not isinstance(private, rsa.RSAPrivateKey) or private.public_key() != signed.public_key():
        raise ConfigurationError([Problem(str(key), CA, "a key that is not the CA's", f"the RSA key of {certificate.name}")])
    if signed.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigurationError(
            [Problem(str(certificate), CA, "a CA that has expired", "a valid one: move both files away for a new CA")]
        )
    return Authority(signed, private)


def _new_authority(now: datetime) -> Authority:
    key = rsa.generate_private_key(public_exponent=65537, key_size=CA_KEY_BITS)
    # The serial in the name tells two CAs of this kind apart.
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"DICOM gateway CA {x509.random_serial_number() % 0xFFFFFFFF:08x}")]
    )
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(asked: Request) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([*map(_dns_name, asked.names), *map(_address, asked.addresses)])


def _issue(folder: Path, authority: Authority, asked: Request, names: x509.SubjectAlternativeName) -> Issued:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    now, issuer = datetime.now(UTC), authority.certificate
    expires = min(now + timedelta(days=asked.days), issuer.not_valid_after_utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, asked.subject)])
    certificate = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer.subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    paths = _paths(folder, asked.subject)
    _write_pair(certificate, key, *paths)
    return Issued(*paths, (*asked.names, *asked.addresses), expires)


def _write_pair(certificate: x509.Certificate, key: rsa.RSAPrivateKey, certificate_path: Path, key_path: Path) -> None:
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_file(key_path, private)
    write_file(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), PUBLIC)
