"""The streams of random numbers, one for each purpose.

Every random draw of a run is a pure function of (seed, stream, position in the run). So there is no generator state to
save, and no two purposes share random numbers. Runs are reproducible only if these values stay the same: never renumber
them.
"""

from enum import IntEnum, unique


@unique
class Stream(IntEnum):
    """Streams for data sets and training; (seed, stream, ...) seeds a generator. Comments give the other seed parts."""

    EPOCH = 1  # (epoch): the order of the groups, and the puzzle chosen from each
    AUGMENTATION = 2  # (step): symmetries of the rows of a batch
    SUBSET = 3  # the subset of examples for an evaluation
    EXPLORATION = 4  # (step): the minimum number of ACT steps of each slot, or a seed for it
    STORED_AUGMENTATION = 5  # symmetries of the copies that a builder stores
    DROPOUT = 6  # (step, rank): dropout, and noise that a recursion adds
    SEARCH = 7  # (round): symmetries and decisions of the chains of a search
    ROLLOUTS = 8  # what makes the rollouts of a puzzle differ, and which particles go on


@unique
class TextStream(IntEnum):
    """Streams for text; their values may repeat those of EPOCH, AUGMENTATION and SUBSET, which text does not use."""

    ORDER = 1  # (epoch): the order of the documents
    PACKING = 2  # (epoch, window): the order in which pieces are packed into rows
    EVALUATION = 3  # (window): the same for held-out text
