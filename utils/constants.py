"""Constants shared by the data sets and the losses."""

IGNORE_LABEL_ID = -100  # label that losses and accuracies ignore
NO_DOCUMENT = -1  # document id of padding positions
