"""Each document tokenised once for all runs: files of tokens, made when they are needed and found again by a digest.

The digest covers the path, size and modification time of each text file, the part of their documents that is used, and
the tokenizer. So other text gets a file of its own. A file may be removed at any time when no run reads it.
"""

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.text.documents import Documents
from dataset.text.token_file import DamagedTokens, TokenFile, write_token_file
from dataset.text.tokenizer import TextTokenizer
from utils.errors import UserError
from utils.files import writing_to

CACHE = Path("data/tokens")
_VERSION = 1  # of the way from files to documents and tokens; raise it when a change alters them
_CHARACTERS_AT_ONCE = 1 << 20  # tokenised as one chunk, which takes about 75 MB until its ids are in arrays
_THREADS = 2  # one prepares or collects while the library tokenises for the other with all cores
_OTHER_FOLDER = (
    "Choose another folder with token_cache=..., or make it writable and free some space. streaming=true needs none."
)


def open_tokens(
    documents: Documents,
    tokenizer: TextTokenizer,
    folder: Path = CACHE,
    *,
    make: bool = True,
    say: Callable[[str], None] = print,
) -> TokenFile:
    """The tokens of `documents`, from the file in `folder` that holds them.

    Args:
        documents: the documents, of local files.
        tokenizer: the tokenizer.
        folder: folder of the files of tokens.
        make: if the file is missing or damaged, make it.
        say: prints a line about that.

    Raises:
        UserError: the file is missing or damaged and is not to be made; the text cannot be read; the folder cannot be
            written.
    """
    made_from = _digest(documents, tokenizer)
    path = folder / f"{_readable_name(documents)}-{made_from[:16]}.tokens"
    try:
        return TokenFile(path, made_from)
    except FileNotFoundError:
        if not make:
            raise UserError(
                f"{path} is missing, although another process has just made or opened it. All processes of a machine "
                "must see the same folder token_cache, and text files with the same modification times."
            ) from None
    except DamagedTokens as error:
        if not make:
            raise
        say(f"{error} It is made anew.")
    size = sum(file.size for file in documents.files)
    say(f"tokenising {size / 1e6:,.1f} MB of text, once for all runs: {path}")
    with writing_to(folder, _OTHER_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
        write_token_file(path, made_from, tokenizer.vocab_size, _tokenise(documents, tokenizer))
    return TokenFile(path, made_from)


def _tokenise(documents: Documents, tokenizer: TextTokenizer) -> Iterator[list[np.ndarray]]:
    """The tokens of all documents in order, int32 [tokens] each, a chunk at a time."""
    running: deque[Future[list[np.ndarray]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for texts in _chunks(documents):
            running.append(pool.submit(tokenizer.encode_batch, texts))
            if len(running) > _THREADS:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _chunks(documents: Documents) -> Iterator[list[str]]:
    """The texts of all documents, some at a time. Reads all files, with a progress bar if that takes long."""
    texts: list[str] = []
    characters = before = 0
    starts = np.cumsum([0, *(file.size for file in documents.files)]).tolist()
    with tqdm(
        total=starts[-1], desc="tokenise", unit="B", unit_scale=True, delay=2, leave=False, disable=None
    ) as progress:
        for place, text in documents.scan():
            texts.append(text)
            characters += len(text)
            if characters >= _CHARACTERS_AT_ONCE:
                yield texts
                texts, characters = [], 0
                progress.update(starts[place.file] + place.end - before)
                before = starts[place.file] + place.end
    if texts:
        yield texts


def _digest(documents: Documents, tokenizer: TextTokenizer) -> str:
    files = [[file.key, file.size, file.modified] for file in documents.files]
    content = [_VERSION, files, repr(documents.part), tokenizer.digest]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _readable_name(documents: Documents) -> str:
    """The name of the first file, as far as it has plain characters; people see by it what the tokens are of."""
    return re.sub(r"[^\w.-]+", "_", Path(documents.files[0].name).stem, flags=re.ASCII)[:40]
