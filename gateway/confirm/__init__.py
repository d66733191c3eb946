"""Confirm: proof that what was delivered is at the destination.

Contract: a delivered instance becomes verified with the strongest proof that its destination asks for and can give, and the
ledger says which. An instance missing there is sent once more; the second time it is held for a person to look at.
"""

from gateway.confirm.confirmer import Confirmer

__all__ = ["Confirmer"]
