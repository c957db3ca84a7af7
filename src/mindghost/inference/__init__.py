"""Weight files and exported files as functions of images."""
