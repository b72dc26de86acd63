"""Opening the text of a run on one or several ranks; its evaluations, against a walk through all its batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.text import token_cache
from dataset.text.opening import TextData, open_text, plan_rows
from dataset.text.sources import CACHE
from tests.text_runs import END, stories, tiny_text, write_text
from utils.distributed import Ranks
from utils.errors import UserError
from utils.hydra import compose
from utils.settings import TextConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("data") / "text")


def opened(data: Path, source: Path | None = None, ranks: Ranks | None = None, **settings: Any) -> TextData:
    return open_text(compose("cfg_tinystories_1m", tiny_text(data, None, **settings)), source, ranks or Ranks())


def test_rank_0_tokenises_and_the_others_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, cache = tmp_path / "run", tmp_path / "tokens"
    whole = opened(data, token_cache=cache)
    whole.tokenizer.save(run)  # without a process group, no rank gets the tokenizer of another
    batch, position = next(whole.batches)

    def refuse(*_: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(token_cache, "_tokenise", refuse)
    parts = [opened(data, run, Ranks(rank, 2, rank), token_cache=cache) for rank in range(2)]
    rows = [next(part.batches) for part in parts]
    assert all(after == position for _, after in rows)
    for name, values in batch.items():
        assert np.array_equal(np.concatenate([part[name] for part, _ in rows]), values)
    with pytest.raises(AssertionError, match="tokenised again"):
        opened(data, run, Ranks(2, 4, 0), token_cache=tmp_path / "of another machine")
    with pytest.raises(UserError, match="must see the same folder token_cache"):
        opened(data, run, Ranks(3, 4, 1), token_cache=tmp_path / "elsewhere")


def test_what_is_said_about_tokens(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = opened(data, token_cache=tmp_path)
    (path,) = tmp_path.iterdir()
    assert capsys.readouterr().out == f"tokenising 0.0 MB of text, once for all runs: {path}\n"
    texts = stories(72)[:60]
    tokens = sum(len(text.tokenizer.encode(story)) for story in texts)
    assert f"\ntokens: {tokens:,} of 60 documents in {path} (0.0 MB)" in str(text)
    opened(data, token_cache=tmp_path)
    streamed = opened(data, token_cache=tmp_path / "none", streaming=True)
    assert capsys.readouterr().out == ""
    assert str(streamed).endswith("\ntokens: made as they are needed")
    assert not (tmp_path / "none").exists()


def test_where_the_tokens_lie(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for tokens, cache, folder in (
        (None, None, "data/tokens"),
        (None, "cache", "cache/tokens"),
        ("mine", "cache", "mine"),
    ):
        text = opened(data, token_cache=tokens, data_cache=cache)
        assert text.tokens is not None
        assert text.tokens.path.parent == Path(folder)
    hub = tmp_path / CACHE / "TinyStories"
    hub.mkdir(parents=True)
    (hub / "TinyStories-train.txt").write_text(f"\n{END}\n".join(stories(60)))
    for _ in range(2):
        text = opened(data, token_cache=None, data_files=[])
        assert text.tokens is not None
        assert text.tokens.path.parent == Path("data/tokens")
    assert len(list(Path("data/tokens").iterdir())) == 2


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("interval", [1, 7, 16, 40, 130, 1000])
@pytest.mark.parametrize("size", [1, 7, 16])
def test_an_evaluation_follows_each_batch_that_reaches_or_passes_a_multiple(size: int, interval: int, keep: int):
    config: TextConfig = compose(
        "cfg_text", ["max_sequences=130", f"eval_interval={interval}", f"global_batch_size={size}"]
    )
    batches = range(1, 130 // size + 1)
    expected = {n * keep for n in batches if n * size // interval > (n - 1) * size // interval}
    assert plan_rows(config, keep) == (130 // size * keep, expected)
