"""Security: TLS contexts for DICOM, and a private certificate authority."""
