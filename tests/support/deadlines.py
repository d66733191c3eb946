"""Deadlines of our requestor for tests: those that nobody wants to run out are long, whatever the machine is busy with."""

from __future__ import annotations

from dataclasses import replace

from gateway.association.scu.requestor import Deadlines
from tests.support.waiting import PATIENCE_S

PATIENT = Deadlines(connect_s=PATIENCE_S, associate_s=PATIENCE_S, response_s=PATIENCE_S, send_s=PATIENCE_S, release_s=PATIENCE_S)


def hasty(**seconds: float) -> Deadlines:
    """Return patient deadlines but for those named: a test that waits for one of them to run out waits for no other.

    A scripted peer ends the connection sooner than the patient ones end the wait, so that one of them in its place is noticed.
    """
    return replace(PATIENT, **seconds)
