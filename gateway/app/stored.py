"""Comparing a destination's stored instance with the delivered one, for ``verify = "digest"``: by elements and pixels.

The instance is fetched as the destination's table says, by Orthanc's REST API, DICOMweb or C-GET, and held against the gateway's
own bytes (`gateway.codec.alike`); so an archive that answers success and keeps what it had is seen. Blocking; thread-safe.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from gateway.archives.places import Place, place
from gateway.archives.places.c_get import NoGet
from gateway.archives.places.place import Unheld
from gateway.codec import alike, contents
from gateway.codec.dataset.extent import Extent
from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.confirm.watch import Delivered, NotComparable, NotStored
from gateway.core.errors import Incomparable, SpoolError, UsageError, WebServiceRefused
from gateway.core.files import make_private_folder
from gateway.spool import Spool


class Stored:
    """Opens destinations to look into what they store."""

    def __init__(self, settings: Settings, spool: Spool, pool: Pool, scratch: Path) -> None:
        """`scratch` is a private folder for files while they are compared; what an earlier run left in it is removed."""
        self._settings = settings.model_copy(update={"sources": {}})
        self._spool, self._pool, self._scratch = spool, pool, scratch
        shutil.rmtree(scratch, ignore_errors=True)

    def __call__(self, destination: str) -> Opened:
        """Return what looks into `destination`; nothing is asked yet. Raises NotComparable, ConfigurationError."""
        try:
            # It is fetched by the best way that there is, however the destination is asked what it holds.
            return Opened(place(self._settings, destination, best=True), self._spool, self._pool, self._scratch)
        except UsageError as error:
            raise NotComparable(str(error)) from error


class Opened:
    """One destination, open for looking into what it stores; see `gateway.confirm.watch.Store`."""

    def __init__(self, held: Place, spool: Spool, pool: Pool, scratch: Path) -> None:
        self._held, self._spool, self._pool, self._scratch = held, spool, pool, scratch

    def differing(self, item: Delivered) -> Sequence[str]:
        """Return what the stored instance differs in from what was delivered: names of elements, and pixels.

        Raises:
            NotStored: the destination does not have it.
            NotComparable: it cannot be fetched or held against ours; the text says why.
            AssociationError, WebServiceUnreachable: not now.
            GatewayStopping: the codec was closed meanwhile.
        """
        to = self._scratch / secrets.token_hex(16)
        try:
            make_private_folder(self._scratch)
            self._fetch(item, to)
            with self._spool.open(item.content) as ours, contents.opened(to) as theirs:
                extent = Extent(ours.fileno(), ours.offset, ours.length)
                mine = alike.Encoded(extent, item.transfer_syntax_uid)
                return alike.differing(mine, theirs, self._pool, folder=self._scratch)
        except (Incomparable, SpoolError) as error:
            raise NotComparable(str(error)) from error
        except OSError as error:
            raise NotComparable(f"the file cannot be kept for it: {error.strerror}") from error
        finally:
            to.unlink(missing_ok=True)

    def close(self) -> None:
        """End what is open, from any thread: what is being fetched then ends with an error."""
        self._held.close()

    def _fetch(self, item: Delivered, to: Path) -> None:
        try:
            self._held.fetch(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid, to)
        except NoGet as error:
            raise NotComparable(str(error)) from error
        except Unheld as error:
            raise NotStored(str(error)) from error
        except WebServiceRefused as error:
            if error.retryable:
                raise
            raise NotComparable(str(error)) from error
