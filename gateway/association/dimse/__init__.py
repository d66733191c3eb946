"""DIMSE (PS3.7): messages, command sets, statuses and identifiers, whichever side asked for the association."""
