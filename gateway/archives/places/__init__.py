"""The holdings of a place: studies, their series, their instances, asked the same way of whatever it is.

A place is a source or a destination (asked by C-FIND, QIDO-RS or Orthanc's REST API, as its table says), a folder of files, or our
own ledger: what is verified at a destination. Calls block and are made on threads, several at a time if one likes. Nothing here
changes what is held.

No stage imports this room; it knows the stages whose files it reads (`intake` tells DICOM files from others, `delivery` names those
of folder destinations).
"""

from gateway.archives.places.folder import FolderPlace
from gateway.archives.places.place import Place, SeriesHeld, StudyHeld, Unheld
from gateway.archives.places.places import folder, place

__all__ = ["FolderPlace", "Place", "SeriesHeld", "StudyHeld", "Unheld", "folder", "place"]
