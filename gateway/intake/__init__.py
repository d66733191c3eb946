"""Intake: one C-STORE request, or one file to send, becomes durable bytes and one ledger transaction.

Contract (promise 1): `StorageIntake` answers 0000 only once the bytes and what was decided about them would be found again
after a power cut; anything else is answered with a refusal and leaves nothing behind. `recover` reconciles spool and ledger at
start. `Releaser` removes bytes that every destination has settled. `files.register` takes folders and archives in for `send`.
Synchronous: on association threads, and through ``trio.to_thread`` from trio.
"""

from gateway.intake.files import FileEvent, FileOutcome, register
from gateway.intake.recovery import RecoveryReport, recover
from gateway.intake.release import Releaser
from gateway.intake.storage import Correlate, Route, StorageIntake, StorageReception

__all__ = [
    "Correlate",
    "FileEvent",
    "FileOutcome",
    "RecoveryReport",
    "Releaser",
    "Route",
    "StorageIntake",
    "StorageReception",
    "recover",
    "register",
]
