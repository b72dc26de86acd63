"""Constants shared by the data sets and the losses."""

IGNORE_LABEL_ID = -100  # label that losses and accuracies ignore
NO_DOCUMENT = -1  # document id of padding positions

MAX_SEED = 2**63 - 1  # the largest seed that every random generator in use accepts
MAX_ACT_STEPS = 100_000  # far beyond any use; larger numbers are typing errors that would seem to hang
