"""Archives: what a peer or a folder holds, asked in the same way of all of them.

`lister` gets around the limits of an archive's answers, `places` are what can be asked; `orthanc` and `dicomweb` are clients of
HTTP services, on top of `http`. Stages use the lister and `folder_identity`; what a place holds they are told.
"""
