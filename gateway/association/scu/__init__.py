"""The requestor's side of associations: connecting, C-ECHO, C-FIND, C-MOVE, C-GET, C-STORE (PS3.8 §9.2, PS3.7)."""
