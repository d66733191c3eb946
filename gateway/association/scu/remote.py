"""A source or destination of the configuration as the AE that an association is asked of."""

from __future__ import annotations

import ssl

from gateway.association.dimse.requests import Deadlines, RemoteAE
from gateway.config.settings import Entity
from gateway.core.throttle import Throttle
from gateway.security.tls import requestor_context


def remote_of(
    table: Entity,
    secure: ssl.SSLContext | None = None,
    *,
    sending: Throttle | None = None,
    receiving: Throttle | None = None,
) -> RemoteAE:
    """Return the AE of a source or destination, which has a port; `secure` is its TLS context, where one was made before.

    Raises:
        ConfigurationError: a certificate or key cannot be used.

    """
    assert table.port is not None
    server_name = None
    if table.tls is not None:
        secure, server_name = secure or requestor_context(table.tls), table.tls.server_name
    return RemoteAE(table.ae_title, table.host, table.port, secure, server_name, sending, receiving)


def deadlines_of(table: Entity) -> Deadlines:
    """Return the deadlines that a source or destination is given."""
    return Deadlines(response_s=table.response_timeout_s, query_s=table.query_timeout_s)
