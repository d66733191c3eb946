"""Transcoding with proof (PS3.5 Annex A, §8).

Given the bytes of one data set and a transfer syntax that a destination takes, the room writes the same data set in that
syntax: the pixels without loss, compared before anything is returned, and every element that does not describe them as it
was. Where that cannot be done it says why, and nothing is returned. `alike` tells whether two encodings hold the same instance.

The room knows nothing of delivery, of the ledger or of associations. `policy` is pure; `transcode` does the work on the caller's
thread, on top of `dataset` (elements as bytes) and `pixels`; `workers` has pixels encoded and decoded in child processes, which
hostile codestreams may kill. `declared` and `contents` hold files against what they say and against each other.
"""
