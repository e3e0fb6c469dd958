"""The algorithms: one file each, on raw pointers, knowing nothing of graphs or of Python."""
