"""Sources of text: local files, or files of a Hugging Face data set, read by byte range.

A source is a file, a folder (its `*.txt` files, or its `*.jsonl` files if it has no others), a glob, or a Hugging Face
data set: `owner/name`, or `owner/name/pattern` for some of its files. `roneneldan/TinyStories` by itself means the
first version (`TinyStories-*.txt`); the second is `roneneldan/TinyStories/TinyStoriesV2-*.txt`.
"""

import codecs
import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from dataset.hub import hub_file, reaching_hub
from utils.errors import UserError
from utils.file_names import safe_name, safe_path
from utils.files import check_regular_file
from utils.text_files import visible

Source = str | Path
CACHE = Path("data/hf")  # parent of the folders of downloaded data sets
_PATTERNS = {"roneneldan/TinyStories": "TinyStories-*.txt"}
_ALL_TEXT = "*.txt"
_ALL_LINES = "*.jsonl"
_SMALL = 64  # bytes; only a smaller file is read to see whether it is empty
# owner/name or owner/name/pattern; a/b.txt and a/b/c do not match, because they are more likely misspelt paths
_HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w.-]+(?<!\.txt))(?:/(.*\*.*|.+\.txt))?")


class TextFile(Protocol):
    """A file that can be read in parts."""

    name: str  # for messages
    key: str  # identifies the file, whatever path was given for it
    size: int  # bytes
    modified: int  # time of the last change, in nanoseconds; 0 if it is not known

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes starting at byte `start`; fewer only at the end of the file.

        Raises:
            UserError: the file cannot be read.
        """
        ...


class LocalFile:
    """A local file, opened for each read."""

    def __init__(self, path: Path):
        self.path, self.name, self.key = path, str(path), str(path.resolve())
        try:
            check_regular_file(path, "Give text files.")
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        self.size, self.modified = status.st_size, status.st_mtime_ns

    def read(self, start: int, length: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}.") from error


class HubFile:
    """A file of a Hugging Face data set; only the parts that are read are downloaded."""

    modified = 0

    def __init__(self, path: str, size: int):
        self.path, self.size = path, size
        self.name = self.key = f"hf://{path}"
        self._handle: Any = None

    def read(self, start: int, length: int) -> bytes:
        from huggingface_hub import HfFileSystem

        otherwise = "or resume the run then; streaming=false downloads the whole first"
        with reaching_hub(f"bytes {start}..{start + length} of {self.name}", otherwise):
            if self._handle is None:
                self._handle = HfFileSystem().open(self.path, "rb")
            self._handle.seek(start)
            return self._handle.read(length)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


def find_files(sources: Sequence[Source], streaming: bool, cache_folder: Path | None) -> list[TextFile]:
    """The files of all sources in the given order, without duplicates; those of one source are sorted by name.

    Args:
        sources: see the docstring of this module.
        streaming: read the files of a Hugging Face data set from the hub instead of downloading them first.
        cache_folder: folder that caches the files of a Hugging Face data set; cached files are not downloaded again.
            None: data/hf/{name}.

    Raises:
        UserError: a source has no files, or cannot be reached, or a file is empty.
    """
    if not sources:
        raise UserError("no source of text is given: name a file, a folder with .txt files or a Hugging Face data set.")
    result: dict[str, TextFile] = {}
    for source in sources:
        local = _local_paths(source)
        files = _hub_files(str(source), streaming, cache_folder) if local is None else map(LocalFile, local)
        for file in files:
            if _is_empty(file):
                raise UserError(f"{file.name} is empty: put text into it, or leave it out (it may be half a download).")
            result.setdefault(file.key, file)
    return list(result.values())


def _is_empty(file: TextFile) -> bool:
    """Whether a file has nothing in it, or, if it is local, nothing but a byte order mark and white space."""
    if file.size >= _SMALL or not isinstance(file, LocalFile):
        return file.size == 0
    return not file.read(0, _SMALL).removeprefix(codecs.BOM_UTF8).strip()


def _local_paths(source: Source) -> list[Path] | None:
    """The local files of `source`; None if it is the name of a Hugging Face data set."""
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        return _text_files(path)
    if path.exists():
        check_regular_file(path, "Give text files.")
    if _HUB_NAME.fullmatch(str(source)) and not Path(path.parts[0]).exists():
        return None
    if any(character in "*?[" for character in str(source)):
        base = Path(path.anchor)
        paths = _matching(base, str(path.relative_to(base)))
        if paths:
            return paths
        raise UserError(f"no file matches {source} (from {Path.cwd()}): correct the pattern.")
    raise UserError(
        f"there is no {source} (from {Path.cwd()}). A source of text is a file, a folder with .txt files, a glob, or a "
        "Hugging Face data set such as roneneldan/TinyStories."
    )


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files in `folder` that match, sorted; hidden ones only if the pattern asks for them, as in a shell."""
    paths = folder.glob(pattern)
    hidden = Path(pattern).name.startswith(".")
    return [path for path in (sorted(paths) if hidden else visible(paths)) if path.is_file()]


def _text_files(folder: Path) -> list[Path]:
    paths = _matching(folder, _ALL_TEXT) or _matching(folder, _ALL_LINES)
    if not paths:
        others = sorted({path.suffix for path in folder.iterdir() if path.is_file()} - {""})
        found = f", only {' '.join(others)}" if others else ""
        raise UserError(
            f"{folder} has no .txt files{found}. Text is read from plain text "
            "files or .jsonl files; those of TinyStories: hf download roneneldan/TinyStories --repo-type dataset "
            f"--include 'TinyStories-*.txt' --local-dir {folder}"
        )
    return paths


def _hub_files(source: str, streaming: bool, cache_folder: Path | None) -> Sequence[TextFile]:
    """The files of a Hugging Face data set, from the cache folder if it has any, else from the hub."""
    match = _HUB_NAME.fullmatch(source)
    assert match is not None
    repo, pattern = match[1], match[2] or _PATTERNS.get(match[1], _ALL_TEXT)
    cache = cache_folder or CACHE / safe_name(repo.split("/")[1], f"the Hugging Face data set {repo}")
    cached = _cached(cache, pattern)
    if cached:
        return cached
    otherwise = f"or put its text files into {cache}, or give local text (there is no local {source})"
    sizes = _list_repo(repo, pattern, otherwise)
    if streaming:
        return [HubFile(f"datasets/{repo}/{name}", size) for name, size in sizes.items()]
    # Download to a temporary folder and move the files once all are there, so that a partial download is never used.
    temporary = cache / ".downloading"
    for name in sizes:
        hub_file(repo, name, otherwise, "dataset", temporary)
    for name in sizes:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).replace(cache / name)
    shutil.rmtree(temporary)
    return _cached(cache, pattern)


def _cached(cache: Path, pattern: str) -> list[LocalFile]:
    return [LocalFile(path) for path in _matching(cache, pattern)]


def _list_repo(repo: str, pattern: str, otherwise: str) -> dict[str, int]:
    """Name within the data set -> size in bytes, for all files that match `pattern`, sorted by name."""
    from huggingface_hub import HfFileSystem

    with reaching_hub(f"the list of files of the Hugging Face data set {repo}", otherwise):
        infos: Any = HfFileSystem().find(f"datasets/{repo}", detail=True)
    sizes = {path.removeprefix(f"datasets/{repo}/"): info["size"] for path, info in sorted(infos.items())}
    # a pattern without folders matches only in the top folder, as it does on disk
    matching = {
        name: size
        for name, size in sizes.items()
        if fnmatch(name, pattern) and name.count("/") == pattern.count("/") and not Path(name).name.startswith(".")
    }
    if not matching:
        raise UserError(
            f"the Hugging Face data set {repo} has no files {pattern}: it has {', '.join(sizes) or 'none at all'}. "
            f"Only plain text is read; name other files with {repo}/PATTERN."
        )
    for name in matching:
        safe_path(name, f"the Hugging Face data set {repo}")
    return matching
