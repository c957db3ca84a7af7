"""Weight files: reading, writing, converting, filling networks."""
