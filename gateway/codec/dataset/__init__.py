"""A data set as bytes, read and written element by element without decoding it (PS3.5 §7, Annex A)."""
