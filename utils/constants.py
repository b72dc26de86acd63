"""Numbers on which the data and the losses must agree."""

IGNORE_LABEL_ID = -100  # the label that the losses and the accuracies skip
NO_DOCUMENT = -1  # the document of a position of text that belongs to none: padding
