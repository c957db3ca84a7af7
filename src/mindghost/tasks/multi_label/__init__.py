"""Any number of labels for each image: all, one or none."""

# The entries of a record that an evaluation fills beside the loss -> what they are called; and their axis in pictures.
TITLES = {"mean_average_precision": "mAP", "micro_f1": "micro F1", "macro_f1": "macro F1"}
AXIS = "validation score (%)"
