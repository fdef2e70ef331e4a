"""What runs, what is wrong, since when, and what to do about it: one value that every surface shows."""
