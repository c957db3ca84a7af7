"""One class for each pixel of an image."""

# The entries of a record that an evaluation fills beside the loss -> what they are called; and their axis in pictures.
TITLES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
AXIS = "validation score (%)"
# Keys that no other task reads.
KEYS = ("ignore_index", "random_scale", "crop_size", "dice_weight", "ohem")
