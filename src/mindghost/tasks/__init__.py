"""What labels mean: a package for each kind of task."""
