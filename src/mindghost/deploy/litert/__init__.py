"""LiteRT's files: their tables, and how they get the integers of a network that was trained for them."""
