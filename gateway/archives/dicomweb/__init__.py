"""DICOMweb services as their user sees them: QIDO-RS to ask what is there, WADO-RS to get whole instances (PS3.18)."""

from gateway.archives.dicomweb.client import DicomWeb, place
from gateway.archives.dicomweb.json import Match

__all__ = ["DicomWeb", "Match", "place"]
