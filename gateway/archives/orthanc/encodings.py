"""The encoding in which an Orthanc stores a study's instances, by REST where it may transcode what it sends. Blocking, thread-safe.

Orthanc tells by C-FIND no transfer syntax, and for SOP classes it reads each file; its REST API has both in its database.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing

from gateway.archives.orthanc.client import Orthanc
from gateway.config.settings import SourceTable
from gateway.core.errors import WebServiceError
from gateway.core.log import get_logger

log = get_logger()

LOOK_S = 600.0
"""For how long it is believed what an Orthanc says of whether it transcodes."""

Encoding = tuple[str, str]
"""SOP Class UID and Transfer Syntax UID."""


class Encodings:
    """The transfer syntaxes stored by those Orthancs among `sources` that have a REST API; `ae_title` is ours."""

    def __init__(self, sources: Mapping[str, SourceTable], ae_title: str) -> None:
        self._tables = {name: table.rest for name, table in sources.items() if table.rest is not None}
        self._ae_title = ae_title
        self._transcodes: dict[str, tuple[float, bool]] = {}

    def __call__(self, source: str, study: str) -> dict[str, Encoding]:
        """Return what each instance of the study is stored as; nothing where it cannot be asked, or sends all as it is stored."""
        table = self._tables.get(source)
        if table is None:
            return {}
        try:
            with closing(Orthanc(table)) as orthanc:
                return orthanc.encodings(study) if self._may_transcode(source, orthanc) else {}
        except WebServiceError as error:
            log.warning("encodings_not_told", source=source, study=study, error=str(error))
            return {}

    def _may_transcode(self, source: str, orthanc: Orthanc) -> bool:
        looked_at, transcodes = self._transcodes.get(source, (-LOOK_S, False))
        if time.monotonic() - looked_at >= LOOK_S:
            transcodes = orthanc.transcodes_mixed() and bool(orthanc.transcodes_for(self._ae_title))
            self._transcodes[source] = (time.monotonic(), transcodes)
        return transcodes
