"""Files for microcontrollers: what is in one, what it takes, and whether it computes what LiteRT does."""
