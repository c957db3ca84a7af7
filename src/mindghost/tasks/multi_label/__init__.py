"""Any number of labels for each image: all, one or none."""
