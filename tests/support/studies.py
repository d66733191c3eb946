"""Studies of a day and a time, with several series: what a scanner sends while somebody watches."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

from tests.support import data


def study_of(seed: int) -> str:
    """Return the Study Instance UID of `write`'s study of `seed`."""
    return f"{data.UID_ROOT}.{seed}.1"


def series_of(seed: int, number: int) -> str:
    """Return the UID of one of its series."""
    return f"{study_of(seed)}.{number}"


def write(
    folder: Path,
    seed: int,
    series: int,
    numbers: range,
    *,
    hours_ago: float = 1.0,
    modality: str = "CT",
    description: str = "",
) -> list[Path]:
    """Write the instances `numbers` of a series of the study of `seed`, which began `hours_ago` by the local clock."""
    began = datetime.fromtimestamp(time.time()) - timedelta(hours=hours_ago)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in numbers:
        dataset = data.ct_dataset(seed=seed, number=number, rows=16, series=series)
        dataset.StudyDate, dataset.StudyTime = f"{began:%Y%m%d}", f"{began:%H%M%S}"
        dataset.Modality, dataset.SeriesDescription = modality, description
        path = folder / f"{seed}-{series}-{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def uids(seed: int, series: int, numbers: range) -> set[str]:
    """Return the SOP Instance UIDs of those instances."""
    return {f"{series_of(seed, series)}.{number}" for number in numbers}
