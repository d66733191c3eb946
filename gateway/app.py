"""The composition root: what a gateway is made of, in which order it starts, and how it drains."""
