"""One class for each image."""

# The entries of a record that an evaluation fills beside the loss -> what they are called; and their axis in pictures.
TITLES = {"top_1": "top-1", "top_5": "top-5"}
AXIS = "validation accuracy (%)"
