"""Instances held against the transfer syntax that they are declared to be in, when they come (`gateway.codec.declared`).

One proved to be in another is recorded under that, with a warning; one in none is recorded as unfit, so that it is held
everywhere, and a retrieval asks for it again. Synchronous: on association threads, and those of `send`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.codec import declared
from gateway.codec.dataset.extent import Extent
from gateway.codec.declared import BEGINNING_BYTES, Judgement
from gateway.codec.workers.pool import Pool
from gateway.core.domain import Content, InstanceIdentity
from gateway.core.errors import GatewayStopping, SpoolIOError
from gateway.core.log import get_logger
from gateway.dicom.syntaxes import syntax
from gateway.spool import Spool, SpoolWriter

_log = get_logger()

BEGINNING = BEGINNING_BYTES
"""The number of bytes of an instance that are to be at hand."""


@dataclass(frozen=True, slots=True)
class Judging:
    """Judges instances; `pool` decodes what is not what it seems. Without one, everything is what it is declared to be."""

    pool: Pool | None = None

    def of_writer(self, writer: SpoolWriter, transfer_syntax_uid: str, beginning: bytes) -> Judgement:
        """Judge what `writer` holds, which begins with `beginning`.

        Raises:
            GatewayStopping: the gateway stops; it has to come again.
            SpoolIOError: it cannot be read back.
        """
        if self.pool is None or declared.fits(beginning, writer.length, transfer_syntax_uid, writer.read):
            return Judgement(transfer_syntax_uid)
        return self._examined(Extent(*writer.written()), transfer_syntax_uid)

    def of_file(self, descriptor: int, offset: int, length: int, transfer_syntax_uid: str) -> Judgement:
        """Judge `length` bytes from `offset` of the file `descriptor`.

        Raises:
            GatewayStopping: the gateway stops.
            OSError: it cannot be read.
        """
        extent = Extent(descriptor, offset, length)
        beginning = extent.read(0, BEGINNING_BYTES) if self.pool else b""
        if self.pool is None or declared.fits(beginning, length, transfer_syntax_uid, extent.read):
            return Judgement(transfer_syntax_uid)
        return self._examined(extent, transfer_syntax_uid)

    def of_spooled(self, spool: Spool, content: Content, transfer_syntax_uid: str) -> Judgement:
        """Judge what is spooled. Raises GatewayStopping, SpoolMissing, SpoolIOError."""
        with spool.open(content) as source:
            try:
                return self.of_file(source.fileno(), source.offset, source.length, transfer_syntax_uid)
            except OSError as error:
                raise SpoolIOError(f"an instance cannot be read: {error.strerror}") from error

    def _examined(self, extent: Extent, transfer_syntax_uid: str) -> Judgement:
        assert self.pool is not None
        try:
            return declared.examine(extent, transfer_syntax_uid, self.pool)
        except (GatewayStopping, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's bytes: whatever they do to us costs this instance only
            _log.exception("instance_not_examined")
            return Judgement(transfer_syntax_uid, f"in a form that cannot be examined (internal error {type(error).__name__})")


def note(identity: InstanceIdentity, judgement: Judgement, association: str) -> None:
    """Log what was found out about an instance that came as `identity`, where it is not what it was declared to be."""
    was, found = syntax(identity.transfer_syntax_uid).name, syntax(judgement.transfer_syntax_uid).name
    log = _log.bind(association=association, sop_instance_uid=identity.sop_instance_uid, declared=was)
    if judgement.unfit:
        log.warning("instance_unfit", reason=judgement.unfit)
    elif judgement.transfer_syntax_uid != identity.transfer_syntax_uid:
        log.warning("transfer_syntax_corrected", found=found)
