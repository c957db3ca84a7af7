"""How commands begin and end, and the commands."""
