"""``gateway certs``: a private CA, and the certificates that it signs."""


def certs() -> None:
    """Make a private CA, and certificates for the gateway and its peers."""
