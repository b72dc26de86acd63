"""Numbers on which the data and the losses must agree."""

IGNORE_LABEL_ID = -100  # the label that the losses and the accuracies skip
