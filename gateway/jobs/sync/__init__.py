"""Keeping destinations supplied: what a source has and they lack is fetched, look after look.

A look asks the source for the studies of a window, the destinations for what they hold of them, and the ledger for what is on its
way; what is lacking, and has stopped growing, is retrieved by `gateway.retrieve`, and delivered as everything else. A destination
lacks what it does not hold by SOP Instance UID; equal counts save asking for UIDs at every look, and are confirmed now and then.

`window`, `series`, `growth`, `pauses`, `shortfall` and `memory` decide, and are pure; `study`, `look` and `runner` ask and act, on
trio.
"""
