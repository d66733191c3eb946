"""Jobs: what decides which studies are moved, compared or kept in step, and what they share."""
