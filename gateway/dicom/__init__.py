"""DICOM as bytes: elements, Part 10 files, transfer syntaxes. Pure: no I/O but through a reader that it is given.

Every room that meets the bytes of an instance reads them here: `part10` reads and writes File Meta Information (PS3.10 §7.1),
`sniff` tells which instance a file is, `head` finds the attributes that routing and the ledger want to know, `elements` walks over
a data set without decoding it, `inflating` reads what is deflated, and `syntaxes` says what a transfer syntax is. Nothing here
raises but what its docstring names, whatever the bytes are.
"""
