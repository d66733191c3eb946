"""The log of the spool: segments, their records, writing, reading and freeing them."""
