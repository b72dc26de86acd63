"""Reading documents against plain splits of whole files; sources, the hub by a stand-in, and the held-out split."""

import hashlib
import json
import os
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dataset.text import documents as text_documents
from dataset.text.documents import MARK, Documents, HashShare, open_documents
from dataset.text.sources import HubFile, LocalFile
from tests.text_runs import stories
from utils.errors import UserError

TEXTS = [
    *stories(40),
    "Zo\xeb fand \u201cdas\u201d \u6f22\u5b57 \U0001f642.",
    "One\n\nwith a blank line\r\nand a Windows one",
]


def write(path: Path, texts: list[str], mark: str = f"\n{MARK}\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mark.join([*texts, ""]).encode())
    return path


def plain(path: Path) -> list[str]:
    """The documents of a file, read whole."""
    return [text.strip() for text in path.read_bytes().decode().split(MARK) if text.strip()]


def all_of(*paths: Path) -> Documents:
    return Documents(tuple(map(LocalFile, paths)))


# -- reading


@pytest.mark.parametrize("mark", [f"\n{MARK}\n", f"\r\n{MARK}\r\n", MARK, f" {MARK}{MARK}\n\n{MARK} "])
@pytest.mark.parametrize("chunk", [1, 5, 64, 1 << 20])
def test_documents_are_what_a_plain_split_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, chunk: int):
    monkeypatch.setattr(text_documents, "_CHUNK", chunk)
    path = write(tmp_path / "a.txt", TEXTS, mark)
    assert plain(path) == TEXTS
    assert list(all_of(path)) == TEXTS
    raw = path.read_bytes()
    for place, text in all_of(path).scan():
        assert raw[place.start : place.end].decode().strip() == text


def test_reading_goes_on_behind_any_document(tmp_path: Path):
    documents = all_of(write(tmp_path / "a.txt", TEXTS[:30]), write(tmp_path / "b.txt", TEXTS[30:]))
    found = list(documents.scan())
    assert [text for _, text in found] == TEXTS
    for number, (place, _) in enumerate(found):
        assert list(documents.scan(place.file, place.end)) == found[number + 1 :]
    places = [place for place, _ in found]
    assert documents.read(places[::-3]) == TEXTS[::-3]


def test_a_file_without_marks_is_one_document(tmp_path: Path):
    (tmp_path / "a.txt").write_text("\n One.\n\nTwo. \n")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfWith a byte order mark\n" + MARK.encode() + b"\nsecond")
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "d.txt").write_text(f"\n \n{MARK}\n\t\n")
    documents = all_of(*sorted(tmp_path.iterdir()))
    assert list(documents) == ["One.\n\nTwo.", "With a byte order mark", "second"]


class CountedFile:
    """Endless stories, of which only those that are read exist."""

    name = key = "endless.txt"
    size = 1 << 50
    modified = 0

    def __init__(self):
        self.bytes_read = 0

    def read(self, start: int, length: int) -> bytes:
        self.bytes_read += length
        story = f"A story like any other. {MARK}\n".encode()
        begin = start % len(story)
        return (story * (length // len(story) + 2))[begin : begin + length]


def test_no_more_is_read_than_asked_for():
    file = CountedFile()
    documents = Documents((file,), streaming=True)
    found = list(islice(documents.scan(0, 38 * 10**9), 5))
    assert [text for _, text in found] == ["A story like any other."] * 5
    assert file.bytes_read == 1 << 20
    assert len(list(islice(documents, 100_000))) == 100_000
    assert file.bytes_read == (1 + 4) << 20  # 38 bytes each
    assert documents.read([found[3][0]]) == ["A story like any other."]


def test_text_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "latin.txt"
    path.write_bytes(f"fine\n{MARK}\ncaf\xe9 au lait".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.txt: byte 22 is not UTF-8"):
        list(all_of(path))
    monkeypatch.setattr(text_documents, "LONGEST", 1 << 20)
    path.write_bytes(f"fine{MARK}".encode() + b"word " * (1 << 20))
    with pytest.raises(UserError, match=r"no <\|endoftext\|> within 1 MiB from byte 17 on"):
        list(all_of(path))
    documents = all_of(path)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        list(documents)


@pytest.mark.parametrize("name", ["text.txt", "folder/text.txt"])
def test_a_pipe_is_refused_without_waiting(tmp_path: Path, name: str):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is a pipe, expected a regular file"):
        all_of(tmp_path / name)


# -- local sources


def names(documents: Documents) -> list[str]:
    return [Path(file.name).name for file in documents.files]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["b", "a", "c"]):
        write(tmp_path / "texts" / f"{name}.txt", TEXTS[14 * number : 14 * number + 14])
    (tmp_path / "texts" / "notes.md").write_text("no document")
    write(tmp_path / "texts" / "deep" / "d.txt", ["deep"])
    return tmp_path / "texts"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("texts", "a b c"),
        ("texts/b.txt", "b"),
        ("texts/[bc].txt", "b c"),
        ("texts/**/*.txt", "a b c d"),
        (["texts/c.txt", "texts", "texts/./c.txt", "texts/deep"], "c a b d"),
    ],
)
def test_local_sources(folder: Path, source: Any, found: str):
    files = [f"{name}.txt" for name in found.split()]
    for absolute in (False, True):
        if absolute:
            source = [folder.parent / part for part in source] if isinstance(source, list) else folder.parent / source
        train, held_out = open_documents(source)
        assert names(train) == names(held_out) == files


def test_hidden_files_are_no_sources_unless_asked_for(folder: Path):
    for name in ("._a.txt", ".b.txt"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07 no document")
    assert names(open_documents("texts")[0]) == names(open_documents("texts/*.txt")[0]) == ["a.txt", "b.txt", "c.txt"]
    write(folder / ".c.txt", TEXTS[:14])
    assert names(open_documents("texts/.c*")[0]) == names(open_documents("texts/.c.txt")[0]) == [".c.txt"]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nothing", {}, "there is no nothing"),
        ("texts/none.txt", {}, "there is no texts/none.txt"),
        ("no/such/folder", {}, "there is no no/such/folder"),
        ("texts/*.text", {}, r"no file matches texts/\*.text"),
        ([], {}, "no source of text"),
        ("empty", {}, "has no .txt files, only .arrow .parquet.*hf download"),
        ("texts", {"held_out": 0}, "between 0 and 1"),
        ("texts", {"held_out": 1.0}, "between 0 and 1"),
        ("texts", {"validation": "none"}, "there is no none"),
        ("texts", {"validation": "texts"}, "all text is held out"),
    ],
)
def test_bad_sources(folder: Path, source: Any, options: dict[str, Any], message: str):
    (folder.parent / "empty").mkdir()
    for suffix in ("parquet", "arrow"):
        (folder.parent / "empty" / f"train.{suffix}").touch()
    with pytest.raises(UserError, match=message):
        open_documents(source, **options)


@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff\n"])
def test_an_empty_file_is_named(folder: Path, content: str):
    (folder / "b2.txt").write_text(content, encoding="utf-8")
    for source in ("texts", ["texts/a.txt", "texts/b2.txt"]):
        with pytest.raises(UserError, match=r"texts/b2.txt is empty"):
            open_documents(source)
        with pytest.raises(UserError, match=r"texts/b2.txt is empty"):
            open_documents("texts/a.txt", validation=source)


def test_hidden_files_are_no_text(folder: Path):
    (folder / "._a.txt").write_bytes(b"\0\5\x16\7 not UTF-8 \xff")
    for source in ("texts", "texts/*.txt"):
        assert names(open_documents(source)[0]) == ["a.txt", "b.txt", "c.txt"]


# -- JSON lines


def write_lines(path: Path, records: list[Any], end: str = "\n") -> Path:
    path.write_bytes("".join(json.dumps(record, ensure_ascii=False) + end for record in records).encode())
    return path


@pytest.mark.parametrize("key", ["text", "story"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_json_line_is_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, end: str, chunk: int):
    monkeypatch.setattr(text_documents, "_CHUNK", chunk)
    documents = all_of(write_lines(tmp_path / "a.jsonl", [{"seed": 1, key: f" {text}\n"} for text in TEXTS], end))
    found = list(documents.scan())
    assert [text for _, text in found] == TEXTS
    for number in (0, 17, len(found) - 1):
        place = found[number][0]
        assert list(documents.scan(place.file, place.end)) == found[number + 1 :]
    assert documents.read([place for place, _ in found][::-3]) == TEXTS[::-3]


def test_folders_of_json_lines(folder: Path):
    write_lines(folder / "deep" / "e.jsonl", [{"text": "one"}])
    assert names(open_documents("texts/deep")[0]) == ["d.txt"]  # beside plain text they are something else
    (folder / "deep" / "d.txt").unlink()
    assert names(open_documents("texts/deep")[0]) == ["e.jsonl"]
    assert names(open_documents(["texts/a.txt", "texts/deep/*"])[0]) == ["a.txt", "e.jsonl"]


@pytest.mark.parametrize("line", ["Once upon a time", '["text"]', '{"words": "x"}', '{"text": 3}', '{"text": "cut'])
def test_lines_without_a_text_are_named(tmp_path: Path, line: str):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(UserError) as caught:
        list(all_of(path))
    assert f"a.jsonl: the line at byte 17 is {line!r}" in str(caught.value)


# -- what is held out


def test_a_share_is_held_out_by_the_hash_of_the_text(tmp_path: Path):
    texts = stories(2000, seed=3)
    again = [*reversed(texts), *texts[:500]]
    path = write(tmp_path / "a.txt", [*texts, *again])
    train, held_out = (list(part) for part in open_documents(path, held_out=0.1))
    kept = [t for t in texts if int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest()) >= 0.1 * 2**64]
    assert set(train) == set(kept)
    assert sorted(train + held_out) == sorted(texts + again)
    assert not set(train) & set(held_out)
    assert len(set(held_out)) / len(set(texts)) == pytest.approx(0.1, abs=0.02)
    streamed = open_documents(write(tmp_path / "b.txt", texts), held_out=0.1, streaming=True)
    assert set(streamed[0]) == set(train)
    assert set(streamed[1]) == set(held_out)
    # the same documents for ever: below one half are those whose `b2sum -l 64` begins with 0 to 7
    assert "".join(text for text in "abcdefgh" if HashShare(0.5, True).holds(text)) == "acefgh"


def test_files_are_held_out_by_name_or_as_given(folder: Path):
    for name in ("x-valid", "TinyStories_validation_1", "invalid", "valids"):
        write(folder / f"{name}.txt", [name])
    train, held_out = open_documents("texts")
    assert names(held_out) == ["TinyStories_validation_1.txt", "x-valid.txt"]
    assert list(held_out) == ["TinyStories_validation_1", "x-valid"]
    assert names(train) == ["a.txt", "b.txt", "c.txt", "invalid.txt", "valids.txt"]
    assert len(list(train)) == len(TEXTS) + 2
    train, held_out = open_documents(["texts/a.txt", "texts/b.txt"], validation=folder / "b.txt")
    assert (names(train), names(held_out)) == (["a.txt"], ["b.txt"])
    train, held_out = open_documents("texts/a.txt", validation=["texts/b.txt", "texts/deep"])
    assert (names(train), names(held_out)) == (["a.txt"], ["b.txt", "d.txt"])
    assert "all documents of b.txt" in held_out.describe()
    assert "2 % of the documents of a.txt" in open_documents("texts/a.txt")[1].describe()


# -- the hub


class FakeHub:
    """Stands in for huggingface_hub's HfFileSystem, and for its download."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.ranges: list[tuple[str, int, int]] = []
        self.downloads: list[str] = []
        self.broken = False

    def __call__(self) -> "FakeHub":
        return self

    def find(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
        assert detail
        self.check()
        return {name: {"size": len(data)} for name, data in self.files.items() if name.startswith(path + "/")}

    def open(self, path: str, mode: str) -> "FakeFile":
        assert mode == "rb"
        self.check()
        return FakeFile(self, path)

    def download(self, repo: str, file: str, repo_type: str, local_dir: Path) -> str:
        assert repo_type == "dataset"
        self.check()
        self.downloads.append(file)
        path = local_dir / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.files[f"datasets/{repo}/{file}"])
        return str(path)

    def check(self) -> None:
        if self.broken:
            from huggingface_hub.errors import HfHubHTTPError

            client_error: Any = HfHubHTTPError.__bases__[0]  # lost connections are no errors of the hub's own
            raise client_error("Name or service not known")


class FakeFile:
    """An open file of `FakeHub`."""

    def __init__(self, hub: FakeHub, path: str):
        self.hub, self.path, self.place = hub, path, 0

    def seek(self, place: int) -> None:
        self.place = place

    def read(self, length: int) -> bytes:
        self.hub.check()
        self.hub.ranges.append((self.path, self.place, length))
        return self.hub.files[self.path][self.place : self.place + length]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    def data(texts: list[str]) -> bytes:
        return f"\n{MARK}\n".join(texts).encode()

    repo = "datasets/roneneldan/TinyStories"
    fake = FakeHub(
        {
            f"{repo}/README.md": b"about",
            f"{repo}/TinyStories-train.txt": data(TEXTS),
            f"{repo}/TinyStories-valid.txt": data(["held out"]),
            f"{repo}/TinyStoriesV2-GPT4-train.txt": data(["second version"]),
            f"{repo}/TinyStoriesV2-GPT4-valid.txt": data(["held out of it"]),
            f"{repo}/data/train.parquet": b"PAR1",
            "datasets/some/columns/data/train.parquet": b"PAR1",
        }
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfFileSystem", fake)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake.download)
    return fake


def test_the_hub_is_streamed_without_a_download(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_documents, "_CHUNK", 256)
    train, held_out = open_documents("roneneldan/TinyStories", streaming=True)
    assert (names(train), names(held_out)) == (["TinyStories-train.txt"], ["TinyStories-valid.txt"])
    assert not hub.ranges
    assert list(islice(train, 3)) == TEXTS[:3]
    assert sum(length for _, _, length in hub.ranges) <= len("".join(TEXTS[:3])) + 512
    assert list(train) == TEXTS
    assert list(pickle.loads(pickle.dumps(HubFile("a", 3))).__dict__) == ["path", "size", "name", "key", "_handle"]
    assert list(held_out) == ["held out"]
    second, _ = open_documents("roneneldan/TinyStories/TinyStoriesV2-*.txt", streaming=True)
    assert list(second) == ["second version"]
    assert not hub.downloads
    assert not list(tmp_path.iterdir())


def test_without_streaming_the_hub_is_downloaded_once(hub: FakeHub, tmp_path: Path):
    train, held_out = open_documents("roneneldan/TinyStories")
    assert sorted(hub.downloads) == ["TinyStories-train.txt", "TinyStories-valid.txt"]
    assert len(list((tmp_path / "data/hf/TinyStories").iterdir())) == 2
    assert [file.name for file in train.files] == ["data/hf/TinyStories/TinyStories-train.txt"]
    assert (list(train), list(held_out)) == (TEXTS, ["held out"])
    hub.broken = True  # from now on only what is in the cache
    for streaming in (False, True):
        train, held_out = open_documents("roneneldan/TinyStories", streaming=streaming)
        assert (list(train), list(held_out)) == (TEXTS, ["held out"])
    assert list(open_documents("data/hf/TinyStories")[0]) == TEXTS
    assert not hub.ranges
    (tmp_path / "data/hf/TinyStories").rename(tmp_path / "elsewhere")
    assert list(open_documents("roneneldan/TinyStories", cache_folder="elsewhere")[0]) == TEXTS


def test_a_part_of_a_download_is_not_taken_for_the_whole(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    def interrupted(repo: str, file: str, repo_type: str, local_dir: Path) -> str:
        hub.broken = bool(hub.downloads)
        return hub.download(repo, file, repo_type, local_dir)

    with monkeypatch.context() as change:
        change.setattr("huggingface_hub.hf_hub_download", interrupted)
        with pytest.raises(UserError, match=r"TinyStories-valid.txt.*cannot be downloaded"):
            open_documents("roneneldan/TinyStories")
        assert len(hub.downloads) == 1
        with pytest.raises(UserError, match="list of files"):
            open_documents("roneneldan/TinyStories")
    hub.broken = False
    assert list(open_documents("roneneldan/TinyStories")[1]) == ["held out"]


def test_without_a_network_the_local_way_is_named(hub: FakeHub):
    train, _ = open_documents("roneneldan/TinyStories", streaming=True)
    hub.broken = True
    with pytest.raises(UserError, match=r"TinyStories-train.txt cannot be downloaded \(Name or service not known\)"):
        list(train)
    for streaming in (False, True):
        with pytest.raises(UserError, match=r"service not known.*data/hf/TinyStories, or give local text"):
            open_documents("roneneldan/TinyStories", streaming=streaming)


def test_a_data_set_without_text_is_refused(hub: FakeHub):
    with pytest.raises(UserError, match=r"some/columns has no files \*.txt: it has data/train.parquet"):
        open_documents("some/columns", streaming=True)
    with pytest.raises(UserError, match=r"no files nothing\*: it has .*TinyStories-train.txt"):
        open_documents("roneneldan/TinyStories/nothing*")
