"""Files on disk: paths, whole writes, locks, downloads, scratch folders."""
