"""An archive made of stock pynetdicom: Storage SCP, C-FIND at IMAGE level and Storage Commitment, each scriptable to lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind, Verification
from pynetdicom.transport import ThreadedAssociationServer

from gateway.core.domain import InstanceIdentity
from tests.support.ports import HOST

_config.LOG_HANDLER_LEVEL = "none"
LITTLE = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


@dataclass
class Archive:
    """An archive, its instances and its answers. Change the callables to script it."""

    status: Callable[[str], int] = lambda _uid: 0x0000
    keeps: Callable[[str], bool] = lambda _uid: True
    """Whether an instance that was answered success is really there afterwards."""

    find_status: int = 0x0000
    lists: int | None = None
    """Maximum number of matches for a C-FIND, which it does not mention; None: no maximum."""

    uid_lists: bool = True
    """Whether it matches lists of UIDs."""

    commits: Callable[[str], bool] | None = None
    """Which instances it commits to; None: those it holds."""

    report_to: tuple[str, int] | None = None
    """AE title and port of where N-EVENT-REPORT goes on a new association; None: on the same one."""

    reports: bool = True
    port: int = 0
    series: dict[str, tuple[str, str]] = field(default_factory=dict)
    """SOP Instance UID to (study, series), for what C-FIND is to answer about data sets that are no images."""

    held: dict[str, bytes] = field(default_factory=dict)
    arrivals: list[str] = field(default_factory=list)
    finds: int = 0
    actions: list[str] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def knows(self, identity: InstanceIdentity) -> None:
        """Tell the archive study and series of an instance that it may be sent."""
        self.series[identity.sop_instance_uid] = (identity.study_instance_uid, identity.series_instance_uid)

    def store(self, event: evt.Event) -> int:
        """Handle C-STORE."""
        uid = str(event.request.AffectedSOPInstanceUID)
        self.arrivals.append(uid)
        status = self.status(uid)
        if (status == 0 or status & 0xF000 == 0xB000) and self.keeps(uid):
            self.held[uid] = event.request.DataSet.getvalue()
        return status

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """Handle C-FIND at IMAGE level, and at STUDY level by UID."""
        self.finds += 1
        if self.find_status:
            yield self.find_status, None
            return
        query = event.identifier
        if query.QueryRetrieveLevel == "STUDY":
            if any(self.series.get(uid, ("",))[0] == query.StudyInstanceUID for uid in list(self.held)):
                match = Dataset()
                match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", query.StudyInstanceUID
                yield 0xFF00, match
            return
        wanted = (str(query.StudyInstanceUID), str(query.SeriesInstanceUID))
        asked = query.get("SOPInstanceUID") or ""
        several = set(asked) if self.uid_lists and not isinstance(asked, str) else set()
        there = [uid for uid in self.held if self.series.get(uid) == wanted and (asked in ("", uid) or uid in several)]
        for uid in there[: self.lists]:
            if uid in self.held:
                match = Dataset()
                match.QueryRetrieveLevel = "IMAGE"
                match.StudyInstanceUID, match.SeriesInstanceUID = wanted
                match.SOPInstanceUID = uid
                yield 0xFF00, match

    def action(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Handle the request for commitment."""
        request = event.action_information
        self.actions.append(str(request.TransactionUID))
        if self.reports:
            target = self._report_same if self.report_to is None else self._report_anew
            thread = threading.Thread(target=target, args=(event.assoc, request), daemon=True)
            self._threads.append(thread)
            thread.start()
        return 0x0000, None

    def _report(self, request: Dataset) -> tuple[int, Dataset]:
        committed = [item for item in request.ReferencedSOPSequence if self._commits(str(item.ReferencedSOPInstanceUID))]
        failed = [item for item in request.ReferencedSOPSequence if item not in committed]
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        if committed:
            report.ReferencedSOPSequence = DicomSequence(committed)
        for item in failed:
            item.FailureReason = 0x0112
        if failed:
            report.FailedSOPSequence = DicomSequence(failed)
        return (2 if failed else 1), report

    def _commits(self, uid: str) -> bool:
        return self.commits(uid) if self.commits else uid in self.held

    def _report_same(self, association, request: Dataset) -> None:
        number, report = self._report(request)
        association.send_n_event_report(report, number, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")

    def _report_anew(self, _association, request: Dataset) -> None:
        number, report = self._report(request)
        ae = AE(ae_title="ARCHIVE")
        ae.add_requested_context(StorageCommitmentPushModel)
        title, port = self.report_to
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate(HOST, port, ae_title=title, ext_neg=[role])
        if association.is_established:
            association.send_n_event_report(report, number, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
            association.release()

    @contextmanager
    def running(
        self,
        *,
        syntaxes: Sequence[str] | None = None,
        find: bool = True,
        commitment: bool = False,
        port: int = 0,
    ) -> Iterator[Archive]:
        """Listen until the context ends. `syntaxes` are the transfer syntaxes it stores in; all that are proposed otherwise."""
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, list(syntaxes or [*LITTLE, *_COMPRESSED]))
        if find:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind, LITTLE)
        if commitment:
            ae.add_supported_context(StorageCommitmentPushModel, LITTLE)
        handlers = [(evt.EVT_C_STORE, self.store), (evt.EVT_C_FIND, self.find), (evt.EVT_N_ACTION, self.action)]
        server = ae.make_server((HOST, port), evt_handlers=handlers, server_class=ThreadedAssociationServer)
        ae._servers.append(server)  # as start_server does, or its shutdown fails
        self.port = server.socket.getsockname()[1]
        # start_server polls every half second, and so long does its shutdown take
        serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        try:
            yield self
        finally:
            for thread in self._threads:
                thread.join(10)
            server.shutdown()
            serving.join(10)


_COMPRESSED = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.2"]
