"""Association: the DICOM upper layer and DIMSE, as acceptor and as requestor (PS3.7, PS3.8).

Contract: one blocking thread an association owns its socket from accept or connect to close; every wait has a deadline, every
length a bound before anything is read, and what a peer sends is never trusted further than its bounds. Errors leave as those of
`gateway.core.errors`. This room alone imports pynetdicom: its PDU classes read and write what sets an association up and ends it,
and it negotiates; P-DATA and command sets, the data path, are ours.

`scp` (acceptor) and `scu` (requestor) are the two ways in. Both stand on `dimse`: messages in and out, command sets, statuses, and
instances on their way to a storage service, whoever asked for the association (a C-GET's come on ours); and that on `upper`: a
connection on which every wait ends, PDUs, presentation contexts, and what a peer may send when.
"""
