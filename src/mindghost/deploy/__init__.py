"""What ships: exported and quantised files, and what describes them."""
