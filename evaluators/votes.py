"""The votes of ARC: for each test input the predicted grids, with how often and how surely each was predicted."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Arrival = tuple[int, int, int]  # call, rank, row: the order of the examples, whatever the number of ranks
Key = bytes  # a grid encoded as height, width, colours; equal grids have equal keys


@dataclass(slots=True)
class Candidate:
    """The votes for one predicted grid, reduced to what its rank depends on."""

    arrival: Arrival  # of the first vote
    votes: int = 0
    confidence: list[float] = field(default_factory=list)  # their exact sum is that of sigmoid(q_halt) of the votes

    def add(self, confidence: float) -> None:
        """Count one more vote."""
        self.votes += 1
        add_exactly(self.confidence, confidence)

    def join(self, other: "Candidate", arrival: Arrival) -> None:
        """Add the votes for the same grid from another rank, the first of which arrived at `arrival`."""
        self.votes += other.votes
        self.confidence.extend(other.confidence)
        self.arrival = min(self.arrival, arrival)


Question = tuple[str, Key]  # task and test input
Votes = dict[Question, dict[Key, Candidate]]  # question -> predicted grid -> votes


def add_exactly(partials: list[float], number: float) -> None:
    """Add `number` to an exact sum that is kept as non-overlapping floats (Shewchuk 1997).

    `math.fsum` of such lists is the same whatever the order, and the number of ranks, in which the numbers were added.
    """
    kept = 0
    for partial in partials:
        if abs(number) < abs(partial):
            number, partial = partial, number
        total = number + partial
        rest = partial - (total - number)
        if rest:
            partials[kept] = rest
            kept += 1
        number = total
    partials[kept:] = [number]


def merge_votes(parts: list[dict[Key, Candidate]]) -> dict[Key, Candidate]:
    """The candidates of all ranks together, the same as in one process that saw all examples."""
    merged: dict[Key, Candidate] = {}
    for rank, part in enumerate(parts):
        for answer, candidate in part.items():
            call, _, row = candidate.arrival
            # merged into a new candidate, so that the votes of the ranks do not change
            merged.setdefault(answer, Candidate((call, rank, row))).join(candidate, (call, rank, row))
    return merged


def pack_votes(votes: Votes) -> dict[str, np.ndarray]:
    """The votes as arrays: bytes and their lengths, and numbers, in the order of the dictionaries."""
    questions = list(votes)
    candidates = [(key, candidate) for of_question in votes.values() for key, candidate in of_question.items()]
    return {
        **_pack("tasks", [name.encode() for name, _ in questions]),
        **_pack("inputs", [key for _, key in questions]),
        **_pack("grids", [key for key, _ in candidates]),
        "candidates": np.array([len(of_question) for of_question in votes.values()], dtype=np.int64),
        "arrivals": np.array([one.arrival for _, one in candidates], dtype=np.int64).reshape(-1, 3),
        "votes": np.array([one.votes for _, one in candidates], dtype=np.int64),
        "parts": np.array([len(one.confidence) for _, one in candidates], dtype=np.int64),
        "confidences": np.array([part for _, one in candidates for part in one.confidence], dtype=np.float64),
    }


def unpack_votes(packed: Mapping[str, np.ndarray]) -> Votes:
    """The votes that `pack_votes` has packed."""
    tasks, inputs, grids = (iter(_unpack(name, packed)) for name in ("tasks", "inputs", "grids"))
    confidences = iter(packed["confidences"].tolist())
    numbers = zip(packed["arrivals"].tolist(), packed["votes"].tolist(), packed["parts"].tolist(), strict=True)
    votes: Votes = {}
    for count in packed["candidates"].tolist():
        of_question = votes.setdefault((next(tasks).decode(), next(inputs)), {})
        for (call, rank, row), times, parts in itertools.islice(numbers, count):
            own = list(itertools.islice(confidences, parts))
            of_question[next(grids)] = Candidate((call, rank, row), times, own)
    return votes


def _pack(name: str, values: list[bytes]) -> dict[str, np.ndarray]:
    lengths = np.array([len(value) for value in values], dtype=np.int64)
    return {name: np.frombuffer(b"".join(values), dtype=np.uint8), f"{name}_lengths": lengths}


def _unpack(name: str, packed: Mapping[str, np.ndarray]) -> list[bytes]:
    whole, ends = packed[name].tobytes(), np.cumsum(packed[f"{name}_lengths"])
    starts = ends - packed[f"{name}_lengths"]
    return [whole[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
