"""The acceptor's side of associations: listening, admission, and serving what is asked (PS3.8 §9.2, PS3.7)."""
