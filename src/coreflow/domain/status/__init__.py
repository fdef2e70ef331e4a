"""The status of a cluster: what runs, what is wrong, since when and what to do, as one value that every surface shows."""
