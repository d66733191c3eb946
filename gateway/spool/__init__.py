"""The spool: truth for bytes. Instances on disk, written once, durable before anyone hears of them.

Contract: what `SpoolWriter.commit` returned survives a power cut (file fsync, rename, directory fsync); what it did not
return leaves nothing but a partial file, which `Spool.sweep` removes at start. Names are opaque, never made of what a peer
sent; files are 0600, folders 0700. An fsync that failed is final. The spool never deletes or changes a file sent in place.
Synchronous and thread-safe: called directly from association threads, through ``trio.to_thread`` from trio.
"""

from gateway.spool.layout import file_location
from gateway.spool.lock import StateLock
from gateway.spool.store import OpenContent, Spool, SpoolEntry, SpoolUsage, digest_of
from gateway.spool.writer import SpoolWriter

__all__ = ["OpenContent", "Spool", "SpoolEntry", "SpoolUsage", "SpoolWriter", "StateLock", "digest_of", "file_location"]
