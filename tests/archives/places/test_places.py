"""One suite for every kind of place: the same studies, asked the same questions, by C-FIND, REST, QIDO-RS and in folders."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pydicom
import pytest

from gateway.archives.places import Place, Unheld, folder, place
from gateway.config.settings import Settings
from gateway.core.errors import UsageError
from tests.support import data, dcmtk, orthanc

STUDIES = {1: ((1, 3), (2, 2)), 2: ((1, 1),)}
"""Study (its seed) to its series with the number of instances of each."""

PLACES = {
    "files": (),
    "delivered": (),
    "orthanc-find": ("Orthanc",),
    "orthanc-rest": ("Orthanc",),
    "orthanc-dicomweb": ("Orthanc", "orthanc-dicomweb"),
    "dcmqrscp": ("dcmqrscp",),
}
"""Places that are asked, and the programs that each needs."""


def uid(seed: int, *rest: int) -> str:
    return ".".join([data.UID_ROOT, str(seed), "1", *map(str, rest)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    for seed, series in STUDIES.items():
        for number, count in series:
            for path in data.ct_series(root / f"{seed}-{number}", count, seed=seed, series=number, rows=16):
                found = pydicom.dcmread(path)
                found.StudyDate, found.SeriesDescription = f"2024010{seed}", f"series {number}"
                found.save_as(path)
    (root / "notes.txt").write_text("no DICOM")
    return root


def below(root: Path) -> list[Path]:
    return sorted(root.rglob("*.dcm"))


def as_delivered(files: Path, to: Path) -> Path:
    for path in below(files):
        study, series, instance, _ = data.identity(path)
        target = to / study / series / f"{instance}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return to


def configured(**destination: Any) -> Settings:
    return Settings.model_validate({"destinations": {"there": destination}})


def _orthanc(stack: ExitStack, tmp: Path, files: Path, ask: str, **more: Any) -> Place:
    plugins = [str(orthanc.DICOMWEB_PLUGIN)] if ask == "dicomweb" else []
    peer = stack.enter_context(orthanc.orthanc(tmp / "orthanc", DicomAlwaysAllowGet=True, Plugins=plugins, **more))
    peer.upload(below(files))
    url = str(peer.rest.base_url)
    web = {"rest": {"rest": {"url": url}}, "dicomweb": {"dicomweb": {"url": f"{url}/dicom-web"}}}.get(ask, {})
    return place(configured(kind="dicom", ae_title="ORTHANC", host="127.0.0.1", port=peer.port, ask=ask, **web), "there")


def make(kind: str, stack: ExitStack, tmp: Path, files: Path) -> Place:
    match kind.partition("-"):
        case ["files", *_]:
            return folder(files)
        case ["delivered", *_]:
            return place(configured(kind="folder", path=as_delivered(files, tmp / "archive")), "there")
        case ["orthanc", _, ask]:
            return _orthanc(stack, tmp, files, ask)
        case _:
            peer = stack.enter_context(dcmtk.dcmqrscp(tmp / "archive", hosts={}, files=below(files)))
            return place(configured(kind="dicom", ae_title="ARCHIVE", host="127.0.0.1", port=peer.port), "there")


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.peers(*needed) if needed else ()) for kind, needed in PLACES.items()],
)
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        made = make(request.param, stack, tmp_path_factory.mktemp(request.param), files)
        yield stack.enter_context(closing(made))


def test_studies_are_listed_with_what_they_count(there: Place) -> None:
    found = there.studies({})
    assert set(found) == {uid(1), uid(2)}
    assert {found[uid(1)].study_date, found[uid(2)].study_date} == {"20240101", "20240102"}
    assert all(study.instances in (None, 5 if one == uid(1) else 1) for one, study in found.items())


@pytest.mark.parametrize(
    ("keys", "seeds"),
    [
        ({"StudyDate": "20240101"}, {1}),
        ({"StudyDate": "20240101-20240102"}, {1, 2}),
        ({"StudyDate": "20240102-20241231"}, {2}),
        ({"StudyDate": "20230101-20231231"}, set()),
        ({"StudyInstanceUID": uid(2)}, {2}),
        ({"PatientID": "TEST1"}, {1}),
        ({"PatientID": "TEST*"}, {1, 2}),
        ({"PatientName": "Test^M*^2"}, {2}),
        ({"Modality": "CT", "StudyDate": "20240102"}, {2}),
        ({"Modality": "MR", "StudyDate": "20240102"}, set()),
        ({"AccessionNumber": "ACC2", "StudyDate": "20240102"}, {2}),
    ],
)
def test_keys_say_which_studies(there: Place, keys: dict[str, str], seeds: set[int]) -> None:
    assert set(there.studies(keys)) == {uid(seed) for seed in seeds}


def test_series_and_instances_are_listed_below_their_study(there: Place) -> None:
    series = there.series(uid(1))
    assert set(series) == {uid(1, 1), uid(1, 2)}
    assert {one.modality for one in series.values()} <= {"CT", ""}
    assert series[uid(1, 1)].instances in (3, None)
    assert there.instances(uid(1), uid(1, 2)) == {uid(1, 2, 1), uid(1, 2, 2)}


def test_what_is_not_there_is_nothing(there: Place) -> None:
    assert there.series("1.2.3") == {}
    assert there.instances(uid(1), "1.2.3") == set()


def test_files_are_given_whole_and_private(there: Place, tmp_path: Path, files: Path) -> None:
    target = tmp_path / "one"
    there.fetch(uid(1), uid(1, 1), uid(1, 1, 2), target)
    assert pydicom.dcmread(target).PixelData == pydicom.dcmread(files / "1-1" / "00002.dcm").PixelData
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unheld):
        there.fetch(uid(1), uid(1, 1), "1.2.3", tmp_path / "none")


@pytest.mark.peers
@pytest.mark.parametrize("ask", ["find", "rest"])
def test_an_orthanc_that_cuts_its_answers_is_asked_until_all_is_there(tmp_path: Path, ask: str) -> None:
    made = tmp_path / "many"
    for seed in range(1, 61):
        (path,) = data.ct_series(made / str(seed), 1, seed=seed, rows=4)
        found = pydicom.dcmread(path)
        found.StudyDate = f"2024{1 + seed % 3:02}{1 + seed % 7:02}"
        found.save_as(path)
    with ExitStack() as stack:
        there = stack.enter_context(closing(_orthanc(stack, tmp_path, made, ask, LimitFindResults=25)))
        assert len(there.studies({"StudyDate": "20240101-20240430"})) == 60
        assert len(there.studies({})) == 60


@pytest.mark.parametrize(("name", "says"), [("nobody", "known: there"), ("there", "no port")])
def test_a_place_that_cannot_be_asked_says_so(name: str, says: str) -> None:
    source = {"ae_title": "SENDS", "host": "127.0.0.1"}
    with pytest.raises(UsageError, match=says):
        place(Settings.model_validate({"sources": {"there": source}}), name)


def test_one_name_for_source_and_destination_is_one_place() -> None:
    peer = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242}
    rest = {"url": "http://127.0.0.1:8042"}
    settings = Settings.model_validate({"sources": {"a": {**peer, "rest": rest}}, "destinations": {"a": {"kind": "dicom", **peer}}})
    with closing(place(settings, "a")) as found:
        assert found.gives_files
