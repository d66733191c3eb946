"""A Storage SCP as the documentation of pynetdicom shows it: ``python stock_scp.py PORT FOLDER``; it keeps what comes undecoded."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pynetdicom
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]


def main() -> None:
    """Listen until the process is ended."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"

    def store(event: evt.Event) -> int:
        (folder / f"{uuid.uuid4()}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    application = AE("STOCK")
    application.maximum_associations = 64
    application.maximum_pdu_size = 131072
    application.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        application.add_supported_context(context.abstract_syntax, ["1.2.840.10008.1.2.1", JPEG2000Lossless])
    application.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
