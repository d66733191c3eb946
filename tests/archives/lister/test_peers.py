"""Real archives behind narrow limits: every series and instance of a study is listed, or it is said that there are more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.archives.lister import Knowledge
from gateway.association.scu.presence import FIND_CONTEXT
from gateway.association.scu.requestor import RemoteAE, associate
from gateway.retrieve.listing import list_study
from gateway.retrieve.request import Wanted
from gateway.retrieve.verdict import Expectation
from tests.support import data
from tests.support.dcmtk import dcmqrscp
from tests.support.orthanc import orthanc
from tests.support.ports import HOST


def written(folder: Path, series: int, count: int) -> tuple[list[Path], str, set[str]]:
    """Write a study; return its files, its UID and the UIDs of its instances."""
    folder.mkdir()
    files, uids, study = list[Path](), set[str](), ""
    for number in range(1, series + 1):
        for instance in range(1, count + 1):
            dataset = data.ct_dataset(seed=7, series=number, number=instance, rows=8)
            dataset.SeriesNumber = number
            files.append(folder / f"{number}-{instance}.dcm")
            dataset.save_as(files[-1], enforce_file_format=True)
            uids.add(str(dataset.SOPInstanceUID))
            study = str(dataset.StudyInstanceUID)
    return files, study, uids


def listed(ae_title: str, port: int, study: str, count: int | None, knowledge: Knowledge) -> tuple[Expectation, int]:
    """List a study; return what is expected, and how many queries that took."""
    with associate(RemoteAE(ae_title, HOST, port), "GATEWAY", (FIND_CONTEXT,)) as association:
        asked = 0
        find: Callable[..., Any] = association.find

        def counted(identifier: Any) -> Any:
            nonlocal asked
            asked += 1
            return find(identifier)

        association.find = counted  # type: ignore[method-assign]
        return list_study(association, Wanted(study, count), knowledge=knowledge), asked


@pytest.mark.peers
@pytest.mark.parametrize(("limit", "series", "count"), [(10, 2, 23), (3, 7, 2), (1, 3, 4)])
def test_orthanc_is_listed_whole_below_study_level(tmp_path: Path, limit: int, series: int, count: int) -> None:
    files, study, uids = written(tmp_path / "files", series, count)
    with orthanc(tmp_path / "orthanc", LimitFindResults=limit, LimitFindInstances=limit) as source:
        source.upload(files)
        found, _ = listed(source.ae_title, source.port, study, len(files), Knowledge())
    assert (set(found.listed), found.doubt) == (uids, "")


@pytest.mark.peers
def test_an_archive_without_limits_and_with_counts_costs_no_query_more(tmp_path: Path) -> None:
    files, study, uids = written(tmp_path / "files", 3, 12)
    with orthanc(tmp_path / "orthanc") as source:
        source.upload(files)
        found, asked = listed(source.ae_title, source.port, study, len(files), Knowledge())
    assert (set(found.listed), found.doubt, asked) == (uids, "", 4)


@pytest.mark.peers
def test_an_archive_that_counts_nothing_costs_a_few_queries_more_once(tmp_path: Path) -> None:
    files, study, uids = written(tmp_path / "files", 3, 12)
    knowledge = Knowledge()
    with dcmqrscp(tmp_path / "archive", hosts={}, files=files) as source:
        first, asked = listed(source.ae_title, source.port, study, None, knowledge)
        again, asked_again = listed(source.ae_title, source.port, study, None, knowledge)
    assert (set(first.listed), first.doubt, set(again.listed)) == (uids, "", uids)
    assert asked <= 4 + 8
    assert asked_again <= 4 + 4
