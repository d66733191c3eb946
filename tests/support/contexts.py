"""TLS contexts of tests, for both ends of a connection; the files are those of `TestCA.issue`."""

from __future__ import annotations

import ssl
from pathlib import Path


def server_context(files: dict[str, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    context.load_verify_locations(files["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: dict[str, Path], *, show: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files["ca"])
    if show:
        context.load_cert_chain(files["certificate"], files["key"])
    return context
