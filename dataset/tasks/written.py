"""Reading what a person writes for a puzzle: a text, nested lists or an array."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from utils.errors import UserError
from utils.text_files import shown


@dataclass(frozen=True)
class Notation:
    """How boards of one size are written.

    Attributes:
        name: the kind of puzzle, for messages, such as `a maze of 10x10`.
        height, width: cells of a board.
        symbols: character -> token.
        number: number -> token, or None if it stands for none.
        allowed: the characters and numbers that are allowed, in words, for messages.
        ignored: characters of a text that stand for nothing, such as those of a frame.
        blank: the token for None in a list; None: it is refused.
    """

    name: str
    height: int
    width: int
    symbols: Mapping[str, int]
    number: Callable[[int], int | None]
    allowed: str
    ignored: str = ""
    blank: int | None = None

    def read(self, puzzle: Any) -> np.ndarray:
        """The tokens, uint8 [height * width], of a text or of nested lists.

        Raises:
            UserError: it has another size, or holds something that stands for no token.
        """
        value = plain_value(puzzle)
        if isinstance(value, list) and value and all(isinstance(row, str) and len(row) != 1 for row in value):
            value = "\n".join(value)  # a list of rows
        if isinstance(value, str):
            return self._read_text(value)
        if isinstance(value, list):
            return self._read_list(value)
        raise UserError(
            f"{self.name}: got {shown(value)} of type {type(value).__name__}. Give a text, nested lists or an array."
        )

    def _read_text(self, text: str) -> np.ndarray:
        lines = [self._cells(line) for line in text.splitlines() if self._has_cells(line)]
        while len(lines) > self.height and not lines[0].strip():
            lines.pop(0)
        while len(lines) > self.height and not lines[-1].strip():
            lines.pop()
        cells = self.height * self.width
        if not "".join(lines).strip():
            raise UserError(f"{self.name}: the text is empty. {self._expected}")
        if len(lines) == self.height > 1 and max(map(len, lines)) <= self.width:
            if " " in self.symbols:  # editors cut off spaces at the end of a line
                lines = [line.ljust(self.width) for line in lines]
            if short := next((row for row, line in enumerate(lines) if len(line) != self.width), None):
                self._refuse_size(f"row {short + 1} has {len(lines[short])} cells")
        whole = "".join(lines)
        if len(whole) != cells and len(whole.strip()) == cells:
            whole = whole.strip()
        if len(whole) != cells:
            several = f" in {len(lines)} rows" if len(lines) > 1 else ""
            self._refuse_size(f"the text has {len(whole)} cells{several}: {shown(text)}")
        return self._tokens([self._token(character, place) for place, character in enumerate(whole)])

    def _has_cells(self, line: str) -> bool:
        """Whether a line is a row, and not part of a frame; an empty line is a row where a space is a cell."""
        return bool(self._cells(line)) or (" " in self.symbols and not line)

    def _cells(self, line: str) -> str:
        return "".join(character for character in line if character not in self.ignored)

    def _read_list(self, rows: list[Any]) -> np.ndarray:
        flat: list[Any] = rows
        if any((isinstance(row, list | str) and len(row) != 1) or isinstance(row, list) for row in rows):
            lengths = [len(row) if isinstance(row, list | str) else 0 for row in rows]
            if len(rows) != self.height or any(length != self.width for length in lengths):
                ragged = f"between {min(lengths)} and {max(lengths)}" if len(set(lengths)) > 1 else str(lengths[0])
                self._refuse_size(f"there are {len(rows)} rows of {ragged} cells")
            flat = [cell for row in rows for cell in row]
        if len(flat) != self.height * self.width:
            self._refuse_size(f"the list has {len(flat)} cells")
        return self._tokens([self._token(cell, place) for place, cell in enumerate(flat)])

    def _token(self, cell: Any, place: int) -> int:
        token: int | None = None
        if cell is None:
            token = self.blank
        elif isinstance(cell, str):
            token = self.symbols.get(cell)
        elif isinstance(cell, int) and not isinstance(cell, bool):
            token = self.number(cell)
        if token is None:
            row, column = divmod(place, self.width)
            where = f"row {row + 1}, column {column + 1}" if self.height > 1 else f"place {place + 1}"
            raise UserError(f"{self.name}: {shown(cell)} at {where}. Allowed are {self.allowed}. Correct this cell.")
        return token

    def _tokens(self, tokens: Sequence[int]) -> np.ndarray:
        return np.array(tokens, np.uint8)

    @property
    def _expected(self) -> str:
        rows = f"{self.height} rows of {self.width} cells" if self.height > 1 else f"{self.width} cells"
        one = f", or {self.height * self.width} in one row" if self.height > 1 else ""
        return f"Expected are {rows}{one}; allowed are {self.allowed}."

    def _refuse_size(self, what: str) -> NoReturn:
        raise UserError(
            f"{self.name}: {what}. {self._expected} Correct the puzzle, or load a model for puzzles of its size."
        )


def read_words(puzzle: Any, symbols: Sequence[str], length: int, name: str) -> np.ndarray:
    """The tokens, uint8 [length], of symbols that are words: a text with spaces between them, or a list.

    Args:
        puzzle: the text, or a list of words or of tokens.
        symbols: the word of each token, from token 0 on.
        length: number of tokens; a shorter puzzle is filled up with token 0.
        name: the kind of puzzle, for messages.

    Raises:
        UserError: it is too long, empty, or holds something that is no symbol.
    """
    value = plain_value(puzzle)
    words = value.split() if isinstance(value, str) else np.ravel(value).tolist() if isinstance(value, list) else []
    allowed = f"Allowed are at most {length} of {', '.join(symbols[:12])}{', ...' if len(symbols) > 12 else ''}"
    if not words or len(words) > length:
        raise UserError(f"{name}: {len(words)} symbols in {shown(value)}. {allowed}, with spaces between them.")
    known = {symbol: token for token, symbol in enumerate(symbols)}
    tokens = [known.get(word) if isinstance(word, str) else word for word in words]
    for place, (word, token) in enumerate(zip(words, tokens, strict=True), start=1):
        if not isinstance(token, int) or not 0 <= token < len(symbols):
            raise UserError(f"{name}: {shown(word)} at place {place}. {allowed}. Correct this symbol.")
    return np.array(tokens + [0] * (length - len(tokens)), np.uint8)


def plain_value(value: Any) -> Any:
    """An array or tensor, or nested sequences of them, as nested lists of Python values; others are returned as is."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return value


def is_batch(puzzle: Any, height: int, width: int) -> bool:
    """Whether a value is several puzzles of `height` x `width` cells rather than one.

    Several are a list of objects, of texts that are more than the rows of one puzzle, or an array with one axis more
    than a puzzle.
    """
    value = plain_value(puzzle)
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(item, str) for item in value):
        cells = height * width
        return height == 1 or len(value) == 1 or any(len(text) >= cells > width or "\n" in text for text in value)
    first = value[0]
    if isinstance(first, Mapping):
        return True
    if not isinstance(first, list) or not first:
        return False
    return isinstance(first[0], list) or (len(first) == height * width and height > 1)
