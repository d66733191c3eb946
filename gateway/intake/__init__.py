"""Intake: one C-STORE request, or one file to send, becomes durable bytes and rows of the ledger.

Contract (promise 1): `StorageIntake` answers 0000 only once an instance would be found again after a power cut, with all that
the ledger is to know of it; anything else is answered with a refusal and leaves nothing behind. `Recorder` has the ledger
follow, in batches; what it did not get to is adopted by `recover`, which reconciles spool and ledger at start. `Releaser` removes
bytes that every destination has settled. `files.register` takes folders and archives in for `send`, `files.bring` single files
for a destination that lacks them; `export` gets files out.
Synchronous: on association threads, on the recorder's, and through ``trio.to_thread`` from trio.
"""

from gateway.intake.export import Exported, ExportOutcome, export
from gateway.intake.files import FileEvent, FileOutcome, bring, register
from gateway.intake.judging import Judging
from gateway.intake.recorder import Recorder
from gateway.intake.recovery import RecoveryReport, recover
from gateway.intake.release import Releaser
from gateway.intake.storage import Correlate, Route, StorageIntake, StorageReception

__all__ = [
    "Correlate",
    "ExportOutcome",
    "Exported",
    "FileEvent",
    "FileOutcome",
    "Judging",
    "Recorder",
    "RecoveryReport",
    "Releaser",
    "Route",
    "StorageIntake",
    "StorageReception",
    "bring",
    "export",
    "recover",
    "register",
]
