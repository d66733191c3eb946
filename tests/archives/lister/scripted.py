"""An archive that gives only so many matches at each level, in the ways in which archives do; answers C-FIND in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from gateway.core.errors import DimseFailed

UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
NUMBERS = {"SeriesNumber", "InstanceNumber"}
COUNTS = {"NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"}


@dataclass(frozen=True)
class Image:
    """An instance with what an archive matches by."""

    study: str
    series: str
    uid: str
    number: int | None = None
    series_number: int | None = None
    modality: str = "CT"
    date: str = "20240102"
    time: str = "101112"
    patient_id: str = "P1"
    accession: str = ""

    def value(self, keyword: str) -> str:
        """Return what it has under a keyword."""
        values = {
            "StudyInstanceUID": self.study,
            "SeriesInstanceUID": self.series,
            "SOPInstanceUID": self.uid,
            "InstanceNumber": "" if self.number is None else str(self.number),
            "SeriesNumber": "" if self.series_number is None else str(self.series_number),
            "Modality": self.modality,
            "ModalitiesInStudy": self.modality,
            "StudyDate": self.date,
            "StudyTime": self.time,
            "PatientID": self.patient_id,
            "AccessionNumber": self.accession,
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        }
        return values.get(keyword, "")


@dataclass
class Archive:
    """Holds `images`. `caps` are its limits by level; `says` is the status that ends an answer that is cut, None for 0000.

    `too_much` is the status with which it refuses a query that finds too much, instead of cutting.
    """

    images: Sequence[Image]
    caps: dict[str, int] = field(default_factory=dict)
    says: int | None = None
    too_much: int | None = None
    counts: bool = True
    numbers: bool = True
    ranges: bool = False
    """Of numbers; dates and times always match by range, unless they are in `ignores`."""

    uid_wild: bool = False
    uid_lists: bool = True
    relational: bool = True
    ignores: frozenset[str] = frozenset()
    refuses_wild: bool = False
    tells_numbers: bool = True
    asked: list[Dataset] = field(default_factory=list)

    def find(self, identifier: Dataset) -> Iterator[Dataset]:
        """Answer one query."""
        self.asked.append(identifier)
        level = str(identifier.QueryRetrieveLevel)
        keys = {element.keyword: _text(identifier, element.keyword) for element in identifier}
        keys.pop("QueryRetrieveLevel")
        if self.refuses_wild and any("*" in value for keyword, value in keys.items() if keyword.endswith("UID")):
            raise DimseFailed("C-FIND", 0xC000)
        if level == "IMAGE" and not self.relational and not keys.get("SeriesInstanceUID"):
            raise DimseFailed("C-FIND", 0xA900)
        rows: dict[str, Image] = {}
        for image in self.images:
            if all(self._matches(image, keyword, value) for keyword, value in keys.items() if value):
                rows.setdefault(image.value(UNIQUE[level]), image)
        cap = self.caps.get(level)
        cut = cap is not None and len(rows) > cap
        if cut and self.too_much is not None:
            raise DimseFailed("C-FIND", self.too_much)
        for image in list(rows.values())[:cap]:
            yield self._answer(image, level, keys)
        if cut and self.says is not None:
            raise DimseFailed("C-FIND", self.says)

    def _answer(self, image: Image, level: str, keys: dict[str, str]) -> Dataset:
        answer = Dataset()
        for keyword in (*keys, UNIQUE[level]):
            value = self._counted(image, keyword) if keyword in COUNTS else image.value(keyword)
            if value and (self.tells_numbers or keyword not in NUMBERS):
                setattr(answer, keyword, value)
        return answer

    def _counted(self, image: Image, keyword: str) -> str:
        if not self.counts:
            return ""
        if keyword == "NumberOfSeriesRelatedInstances":
            return str(sum(one.series == image.series for one in self.images))
        some = [one for one in self.images if one.study == image.study]
        return str(len({one.series for one in some}) if keyword == "NumberOfStudyRelatedSeries" else len(some))

    def _matches(self, image: Image, keyword: str, asked: str) -> bool:
        value = image.value(keyword)
        if keyword in self.ignores or keyword in COUNTS or (keyword in NUMBERS and not self.numbers):
            return True
        if keyword in NUMBERS and "-" in asked[1:]:
            first, _, last = asked.partition("-")
            return self.ranges and value != "" and int(first) <= int(value) <= int(last)
        if keyword in {"StudyDate", "StudyTime"}:
            first, dash, last = asked.partition("-")
            return value >= first and (not last or value <= last) if dash else value == asked
        if keyword.endswith("UID"):
            if "*" in asked:
                return self.uid_wild and value.startswith(asked.removesuffix("*"))
            return value in (asked.split("\\") if self.uid_lists else [asked])
        return re.fullmatch(re.escape(asked).replace(r"\*", ".*").replace(r"\?", "."), value) is not None


def _text(dataset: Dataset, keyword: str) -> str:
    element = dataset.get_item(keyword)
    value = element.value
    if isinstance(value, bytes):
        return value.decode().strip()
    if value is None:
        return ""
    return "\\".join(map(str, value)) if not isinstance(value, str) and hasattr(value, "__iter__") else str(value)


def series(count: int, *, study: str = "1.2.3", number: int = 1, first: int = 1, **more: object) -> list[Image]:
    """Return one series of so many instances, numbered from `first`."""
    uid = f"{study}.{number}"
    return [
        Image(study, uid, f"{uid}.{n}", number=n, series_number=number, **more)  # type: ignore[arg-type]
        for n in range(first, first + count)
    ]


def study(counts: Sequence[int], *, uid: str = "1.2.3", **more: object) -> list[Image]:
    """Return a study of series with so many instances each."""
    return [image for number, count in enumerate(counts, 1) for image in series(count, study=uid, number=number, **more)]
