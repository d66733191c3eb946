"""A client of one DICOMweb service (PS3.18 §10.6 Search, §10.4 Retrieve). Blocking, thread-safe; errors are `WebServiceError`.

Services cut their answers short as they like, so searches are paged until a page brings nothing new: a page that is shorter than
was asked for is no sign of the end, and a service that does not know ``offset`` repeats itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO
from urllib.parse import quote

from gateway.archives.dicomweb.json import Match, matches_of
from gateway.archives.dicomweb.multipart import first_part
from gateway.archives.http import MAX_PAGED, Service, document
from gateway.config.settings import RestTable
from gateway.core.errors import WebServiceError

PAGE = 500
"""Matches asked for at a time."""

_JSON = "application/dicom+json"
_ANY_SYNTAX = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class DicomWeb:
    """One service. Every method raises WebServiceError where it cannot be asked or refuses."""

    def __init__(self, table: RestTable) -> None:
        self._service = Service(table)
        self.url = self._service.url

    def close(self) -> None:
        """End its connections."""
        self._service.close()

    def search(self, path: str, unique: str, keys: Mapping[str, str], fields: Iterable[str] = ()) -> Iterator[Match]:
        """Yield the matches of `keys` at `path` (``/studies``, ``/studies/1.2/series`` …), each `unique` UID once.

        `fields` are keywords to be answered beside those that every service answers.
        """
        seen: set[str] = set()
        offset = 0
        while True:
            asked = [*keys.items(), *(("includefield", field) for field in fields), ("limit", str(PAGE)), ("offset", str(offset))]
            page = self._page(path, asked)
            offset += len(page)
            new = [match for match in page if match.uid(unique) not in seen]
            for match in new:
                seen.add(match.uid(unique))
                yield match
            if not new:
                return
            if len(seen) > MAX_PAGED:
                raise WebServiceError(f"lists more than {MAX_PAGED} matches of one search", url=self.url)

    def fetch(self, study: str, series: str, instance: str, file: BinaryIO) -> None:
        """Write the Part 10 file of an instance into `file`, in whatever transfer syntax the service keeps it."""
        path = place(study, series, instance)
        with self._service.stream(path, Accept=_ANY_SYNTAX) as (content_type, chunks):
            try:
                first_part(content_type, chunks, file)
            except ValueError as error:
                raise WebServiceError(f"an instance that is no multipart message: {error}", url=self.url) from error

    def _page(self, path: str, asked: list[tuple[str, str]]) -> list[Match]:
        answer = self._service.get(f"{path}?{query_string(asked)}", Accept=_JSON)
        if answer.status == 204 or not answer.body:
            return []
        found = matches_of(document(answer, self.url))
        if found is None:
            raise WebServiceError("the answer is no list of matches", url=self.url)
        return found


def place(study: str = "", series: str = "", instance: str = "") -> str:
    """Return the path of a resource by its UIDs, whatever these are made of (PS3.18 §8.2). Pure."""
    named = (("studies", study), ("series", series), ("instances", instance))
    return "".join(f"/{level}/{quote(uid, safe='')}" for level, uid in named if uid)


def query_string(asked: Iterable[tuple[str, str]]) -> str:
    """Return the query of a search. Pure.

    Wildcards and commas stand as they are, which RFC 3986 §3.4 allows: Orthanc's plugin takes ``%2A`` for those three characters.
    """
    return "&".join(f"{key}={quote(value, safe=_PLAIN)}" for key, value in asked)


_PLAIN = "*?,"
