"""The transfer syntaxes of `gateway.dicom.syntaxes`, under the name by which rooms around the codec know them."""

from __future__ import annotations

from gateway.dicom.syntaxes import *  # noqa: F403 - another name of the same module
