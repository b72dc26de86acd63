"""Tasks whose questions and answers are texts, written character by character.

The input is the question followed by blanks; the label asks for the answer right behind the question, and for one blank
behind that, which ends it. The tokens are the bytes of UTF-8, so any text can be written: a character of ASCII is one
token.
"""

from typing import Any

import numpy as np

from dataset.tasks.look import Look, SymbolLook
from dataset.tasks.puzzle import Verdict
from dataset.tasks.task import DoesNotFit, Task
from utils.errors import UserError
from utils.text_files import shown

BLANK = 1
# tab, line feed, printable ASCII, and the bytes that other characters have in UTF-8
_BYTES = bytes([9, 10, *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF5)])
VOCAB_SIZE = len(_BYTES) + 2
_FIRST = 2
_ROW = 32  # characters in a row of a picture
_TOKEN_OF_BYTE = np.zeros(256, np.uint8)
_TOKEN_OF_BYTE[list(_BYTES)] = np.arange(_FIRST, VOCAB_SIZE)


class TextLook(SymbolLook):
    """Displays a text in rows of 32 characters; bytes of other characters than those of ASCII show as a tilde."""

    style = "block"

    def __init__(self, seq_len: int):
        width = _ROW if seq_len % _ROW == 0 else seq_len
        shown_as = [chr(byte) if 0x20 <= byte < 0x7F else "~" for byte in _BYTES]
        super().__init__(seq_len // width, width, [" ", *shown_as])

    def character(self, token: int) -> str:
        """See `Look.character`."""
        return " " if token <= BLANK else super().character(token)


class TextTask(Task):
    """Questions and answers of at most `seq_len` - 1 characters together.

    Raises:
        UserError: the size of the vocabulary is another one.
    """

    def __init__(self, seq_len: int, vocab_size: int):
        super().__init__(seq_len, vocab_size)
        if vocab_size != VOCAB_SIZE:
            raise UserError(
                f"vocab_size {vocab_size}: tasks of text have {VOCAB_SIZE} tokens. Choose a data set built with "
                "`python -m dataset.build_task_dataset`."
            )

    @staticmethod
    def size_for(length: int) -> tuple[int, int]:
        """(seq_len, vocab_size) for questions and answers of `length` bytes together: whole rows of a picture."""
        return -(-(length + 1) // _ROW) * _ROW, VOCAB_SIZE

    def look(self) -> Look:
        """See `Task.look`."""
        return TextLook(self.seq_len)

    def is_batch(self, puzzle: Any) -> bool:
        """See `Task.is_batch`: a list is several texts."""
        return isinstance(puzzle, list | tuple)

    def encode(self, puzzle: Any) -> np.ndarray:
        """See `Task.encode`: a text. White space around it does not count."""
        if not isinstance(puzzle, str) or not puzzle.strip():
            raise UserError(f"a question of the task {self.name}: got {shown(puzzle)}. Expected is a text.")
        tokens = self._tokens(puzzle.strip())
        if len(tokens) >= self.seq_len:
            raise DoesNotFit(
                f"a question of the task {self.name}: {len(tokens)} characters, {shown(puzzle)}. There is room for "
                f"{self.seq_len - 1}, with the answer. Shorten it, or load a model for longer ones."
            )
        return np.concatenate([tokens, np.full(self.seq_len - len(tokens), BLANK, np.uint8)])

    def encode_answer(self, answer: Any, question: np.ndarray) -> np.ndarray:
        """See `Task.encode_answer`: a text."""
        tokens = self._tokens(str(answer).strip())
        start = _length(question)
        if start + len(tokens) >= self.seq_len:
            raise DoesNotFit(
                f"an answer of the task {self.name}: {len(tokens)} characters, {shown(answer)}. There is room for "
                f"{self.seq_len - start - 1} behind its question."
            )
        label = np.zeros(self.seq_len, np.uint8)
        label[start : start + len(tokens)] = tokens
        label[start + len(tokens)] = BLANK
        return label

    def _tokens(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.replace("\r\n", "\n").encode(errors="replace"), np.uint8)
        tokens = _TOKEN_OF_BYTE[codes]
        if not tokens.all():
            byte = int(codes[int(np.flatnonzero(tokens == 0)[0])])
            raise UserError(f"the task {self.name}: the control character 0x{byte:02x} in {shown(text)}. Leave it out.")
        return tokens

    def decode(self, tokens: np.ndarray, question: np.ndarray | None = None) -> str:
        """See `Task.decode`: the text, of an answer that behind its question."""
        part = np.asarray(tokens)[_length(question) if question is not None else 0 :]
        part = part[: _length(part)].astype(np.int64)
        codes = np.frombuffer(_BYTES, np.uint8)[(part - _FIRST).clip(0, len(_BYTES) - 1)]
        return codes.tobytes().decode(errors="replace")

    def rows(self, tokens: np.ndarray, question: np.ndarray | None = None) -> list[str]:
        """See `Task.rows`."""
        return self.decode(tokens, question).splitlines() or [""]

    def grid(self, tokens: np.ndarray, question: np.ndarray | None = None) -> np.ndarray:
        """See `Task.grid`: the text as one value."""
        return np.array(self.decode(tokens, question))

    def verify(self, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None) -> Verdict:
        """See `Task.verify`: the text is compared with that of the label."""
        if label is None:
            return Verdict("undecided", "the answer is not known, and there are no rules to check it by", False)
        own, right = self.decode(answer, question), self.decode(label, question)
        if own == right:
            return Verdict("solved", "the answer is the one that came with the question")
        return Verdict("wrong", f"the answer that came with the question is {shown(right)}")


def _length(tokens: np.ndarray) -> int:
    """The number of tokens before the first blank or padding."""
    ends = np.flatnonzero(np.asarray(tokens) <= BLANK)
    return int(ends[0]) if len(ends) else len(tokens)
