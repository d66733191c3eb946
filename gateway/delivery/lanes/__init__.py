"""One destination at work: its lane on trio, its threads, and the decisions that they share."""
