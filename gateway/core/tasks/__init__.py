"""Tasks of trio: word to them from threads, and a parent for those that outlive whoever asked for them."""
