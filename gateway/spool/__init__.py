"""The spool: truth for bytes. Instances on disk, written once, durable before anyone hears of them.

Contract: what `SpoolWriter.commit` returned survives a power cut; of what it did not return nothing is left but what `Spool.sweep`
removes at start. Names are opaque, never made of what a peer sent; files are 0600, folders 0700. A sync that failed is final. The
spool never deletes or changes a file sent in place. Synchronous and thread-safe: called directly from association threads, through
``trio.to_thread`` from trio.

Instances are records of a log (`segments`): preallocated files that are written one record after another, with one
``fdatasync`` an instance. `segments.pool` lends segments to writers and readers and frees them, `survey` finds at start what is
in them, `single` keeps the instances that lie in files of their own, `store` is the one face of it all.
"""

from typing import TYPE_CHECKING

from gateway.core.exports import lazily

if TYPE_CHECKING:
    from gateway.spool.content import OpenContent, SpoolEntry, SpoolUsage, copy_bytes, digest_of
    from gateway.spool.layout import LOG_PREFIX, SEGMENT_PREFIX_LENGTH, file_location, in_place
    from gateway.spool.lock import StateLock
    from gateway.spool.segments.pool import sync_folder
    from gateway.spool.segments.writer import SpoolWriter
    from gateway.spool.store import Spool
    from gateway.spool.survey import Swept
else:
    __getattr__ = lazily(
        __name__,
        {
            "content": (
                "OpenContent",
                "SpoolEntry",
                "SpoolUsage",
                "copy_bytes",
                "digest_of",
            ),
            "layout": (
                "LOG_PREFIX",
                "SEGMENT_PREFIX_LENGTH",
                "file_location",
                "in_place",
            ),
            "lock": ("StateLock",),
            "segments.pool": ("sync_folder",),
            "store": ("Spool",),
            "survey": ("Swept",),
            "segments.writer": ("SpoolWriter",),
        },
    )

__all__ = [
    "LOG_PREFIX",
    "SEGMENT_PREFIX_LENGTH",
    "OpenContent",
    "Spool",
    "SpoolEntry",
    "SpoolUsage",
    "SpoolWriter",
    "StateLock",
    "Swept",
    "copy_bytes",
    "digest_of",
    "file_location",
    "in_place",
    "sync_folder",
]
