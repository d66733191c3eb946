"""The REST API of an Orthanc, as far as the gateway asks it: what it holds, whole files, deleting, how full it is."""

from gateway.archives.orthanc.client import Orthanc, Resource, Statistics

__all__ = ["Orthanc", "Resource", "Statistics"]
