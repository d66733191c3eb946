"""Routing: which destinations an instance goes to. Pure: rules and attributes in, names of destinations out.

Every route whose `when` matches applies, in the order of the configuration; a destination is named once. An instance that no
route matches is kept and shown as unrouted. `when` asks for DICOM keywords of the data set's top level, and for ``calling_ae``,
``called_ae`` and ``source``. All entries of a `when` must match; of several patterns for one key, one suffices.
"""

from gateway.route.rules import Rule, Rules, compile_routes, route

__all__ = ["Rule", "Rules", "compile_routes", "route"]
