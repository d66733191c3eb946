"""TLS for DICOM associations (PS3.15 §B.12, BCP 195): contexts, the reasons of failed handshakes, expiry.

TLS 1.2 at least, mutual authentication in both directions, forward secrecy and authenticated encryption only. A
requestor checks the peer's name; an acceptor requires a certificate and leaves the binding to a source to admission.
Contexts are made once and shared by threads; the functions here keep no state.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.settings import ListenTlsTable, Settings, TlsTable
from gateway.core.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from cryptography import x509

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
"""TLS 1.2 suites with forward secrecy and authenticated encryption (BCP 195 §4.2); TLS 1.3 has no others."""

WARN_BEFORE = timedelta(days=30)
"""A certificate is warned about this long before it expires."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate file that the configuration names, and what for."""

    path: Path
    key: str
    names: tuple[str, ...]
    expires: datetime

    def remaining(self, now: datetime) -> timedelta:
        """Return how long it is still valid; negative once it has expired."""
        return self.expires - now

    def needs_attention(self, now: datetime) -> bool:
        """Tell whether it has expired or will within `WARN_BEFORE`."""
        return self.remaining(now) < WARN_BEFORE


def requestor_context(table: TlsTable, *, key: str = "tls") -> ssl.SSLContext:
    """Make the context of an association that we request: checks the peer's chain and name, shows our certificate.

    Pass the name to check as ``server_hostname`` (`table.server_name`, else the peer's host).

    `key` is the table's place in the configuration, for messages. Raises ConfigurationError where a file cannot be used.
    PS3.15 §B.12.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = True
    return _furnished(context, table, key)


def acceptor_context(table: ListenTlsTable, *, key: str = "listen.tls") -> ssl.SSLContext:
    """Make the context of the listener: the client must show a certificate that `table.ca` signed.

    `key` is the table's place in the configuration, for messages. Raises ConfigurationError where a file cannot be used.
    PS3.15 §B.12.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # One for one: who resumes a session gets the ticket for the next.
    context.num_tickets = 1
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    return _furnished(context, table, key)


def _furnished(context: ssl.SSLContext, table: TlsTable | ListenTlsTable, key: str) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    _use(f"{key}.ca", table.ca, lambda: context.load_verify_locations(table.ca))
    _use(f"{key}.certificate", table.certificate, lambda: _load_chain(context, table, key))
    return context


def _load_chain(context: ssl.SSLContext, table: TlsTable | ListenTlsTable, key: str) -> None:
    """Load our certificate and key; OpenSSL reports a wrong password in too many ways to tell it from its answer."""
    password = table.key_password.get_secret_value() if table.key_password else ""
    try:
        # Without a password given, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(table.certificate, table.key, lambda: password)
    except ssl.SSLError as error:
        if error.reason != "KEY_VALUES_MISMATCH" and "ENCRYPTED" in table.key.read_text(errors="replace"):
            expected = "the password of the key as key_password"
            raise ConfigurationError(
                [Problem(str(table.key), f"{key}.key", "a private key that does not open", expected)]
            ) from error
        raise


def _use(key: str, path: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise ConfigurationError([Problem(str(path), key, *_unusable(error))]) from error
    except OSError as error:
        expected = "a readable PEM file, and its key beside it"
        raise ConfigurationError([Problem(str(path), key, error.strerror or type(error).__name__, expected)]) from error


def _unusable(error: ssl.SSLError) -> tuple[str, str]:
    """Say what was found in a PEM file that OpenSSL cannot use, and what was expected."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return "a certificate and a key that do not belong together", "the private key of this very certificate"
    return f"no usable PEM ({error.reason or 'unreadable'})", "a certificate and a private key in PEM format"


def certificate_names(der: bytes) -> tuple[str, ...]:
    """Return the names in a DER certificate: DNS names and addresses of its alternative names, then its common names.

    Raises ValueError where `der` is no certificate.
    """
    from cryptography import x509

    return _names(x509.load_der_x509_certificate(der))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    names: list[str] = []
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternative = None
    if alternative is not None:
        names += alternative.get_values_for_type(x509.DNSName)
        names += [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]
    names += [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(dict.fromkeys(names))


def certificate_expired(der: bytes | None, now: datetime) -> bool:
    """Tell whether the DER certificate is not valid at `now` (aware), or is none at all."""
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der or b"")
    except ValueError:
        return True
    return not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _read_certificate(path: Path, key: str) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else "no certificate"
        raise ConfigurationError([Problem(str(path), key, found, "a certificate in PEM format")]) from error


def configured_certificates(settings: Settings) -> tuple[Certificate, ...]:
    """Return the certificates and CAs that `settings` name, each file once, soonest to expire first.

    Raises ConfigurationError where one cannot be read.
    """
    found: dict[Path, Certificate] = {}
    for key, table in _tls_tables(settings):
        for field, path in (("certificate", table.certificate), ("ca", table.ca)):
            if path not in found:
                certificate = _read_certificate(path, f"{key}.{field}")
                found[path] = Certificate(path, f"{key}.{field}", _names(certificate), certificate.not_valid_after_utc)
    return tuple(sorted(found.values(), key=lambda certificate: certificate.expires))


def expiring(settings: Settings, now: datetime | None = None) -> tuple[Certificate, ...]:
    """Return the configured certificates that have expired or will within `WARN_BEFORE` of `now` (aware)."""
    moment = now or datetime.now(UTC)
    return tuple(certificate for certificate in configured_certificates(settings) if certificate.needs_attention(moment))


def check_contexts(settings: Settings) -> None:
    """Make every TLS context that `settings` ask for. Raises ConfigurationError with the problems of all of them."""
    problems: list[Problem] = []
    for key, table in _tls_tables(settings):
        try:
            if isinstance(table, ListenTlsTable):
                acceptor_context(table, key=key)
            else:
                requestor_context(table, key=key)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)


def _tls_tables(settings: Settings) -> list[tuple[str, TlsTable | ListenTlsTable]]:
    tables: list[tuple[str, TlsTable | ListenTlsTable | None]] = [("listen.tls", settings.listen.tls)]
    tables += [(f"sources.{name}.tls", source.tls) for name, source in settings.sources.items()]
    tables += [(f"destinations.{name}.tls", to.can.tls) for name, to in settings.destinations.items()]
    return [(key, table) for key, table in tables if table is not None]


def handshake_failure(error: OSError) -> str:
    """Say in words why a TLS handshake failed, for the message of a TlsFailed. No name of a patient can be in it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no TLS handshake in time: does the peer speak TLS on this port?"
    if isinstance(error, ssl.SSLError):
        return _HANDSHAKE_REASONS.get(error.reason or "", f"TLS handshake failed ({error.reason or 'connection closed'})")
    if isinstance(error, ConnectionError | socket.herror):
        return "the peer closed the connection during the TLS handshake: does it speak TLS on this port, and trust our certificate?"
    return f"TLS handshake failed ({error.strerror or type(error).__name__})"


_HANDSHAKE_REASONS = {
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS on this port",
    "HTTP_REQUEST": "the peer speaks HTTP, not TLS",
    "UNSUPPORTED_PROTOCOL": "the peer offers no TLS 1.2 or newer",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer refuses TLS 1.2 and newer",
    "NO_SHARED_CIPHER": "no cipher suite in common with the peer",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer refused the handshake: no cipher suite in common, or another certificate required",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer showed no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know the CA of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer refuses our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer requires a certificate and got none that it accepts",
    "UNEXPECTED_EOF_WHILE_READING": "the peer closed the connection during the TLS handshake",
}
