"""A DICOM gateway: every instance durable before it is answered, and proved at its destination."""

__version__ = "0.1.0"
