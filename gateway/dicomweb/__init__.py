"""DICOMweb services as their user sees them: QIDO-RS to ask what is there, WADO-RS to get whole instances (PS3.18)."""

from gateway.dicomweb.client import DicomWeb, place
from gateway.dicomweb.json import Match

__all__ = ["DicomWeb", "Match", "place"]
