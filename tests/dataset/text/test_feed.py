"""Text batches loaded ahead by worker processes: each once, in the order and with the positions of a single process."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dataset.text.batches import Position, TextBatches
from dataset.text.documents import Documents
from dataset.text.feed import text_feed
from dataset.text.sources import LocalFile
from dataset.text.tokenizer import TextTokenizer, make_tokenizer
from tests.dataset.text.test_batches import batches_of
from tests.dataset.text.test_documents import write
from tests.text_runs import stories, write_text

KEEP = 2  # steps on each batch
LAST = 15  # the last step


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = write_text(tmp_path_factory.mktemp("bpe") / "files")
    return make_tokenizer("gpt2", folder / "vocab.json", folder / "merges.txt", 300, sample=stories(30))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> LocalFile:
    return LocalFile(write(tmp_path_factory.mktemp("texts") / "a.txt", stories(70)))


def batches(file: LocalFile, tokenizer: TextTokenizer, streaming: bool) -> TextBatches:
    cache = file.path.parent / "tokens"
    options = {"seq_len": 32, "global_batch_size": 2, "seed": 7, "window": 16}
    return batches_of(Documents((file,), None, streaming), tokenizer, cache, **options)


def feed(source: TextBatches, first: int, workers: int) -> Iterator[tuple[int, dict[str, Tensor], Position]]:
    return text_feed(source, range(first, LAST + 1), KEEP, torch.device("cpu"), workers)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than cores
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_share_the_batches(file: LocalFile, tokenizer: TextTokenizer, streaming: bool, workers: int):
    alone = list(feed(batches(file, tokenizer, streaming), 1, 0))
    assert not all(torch.equal(alone[0][1]["inputs"], batch["inputs"]) for _, batch, _ in alone)
    resumed = batches(file, tokenizer, streaming)
    resumed.load_state_dict(alone[5][2])
    for source, first in ((batches(file, tokenizer, streaming), 1), (resumed, 7)):
        for expected, found in zip(alone[first - 1 :], feed(source, first, workers), strict=True):
            assert found[0] == expected[0]
            assert found[2] == expected[2]
            assert all(torch.equal(found[1][name], values) for name, values in expected[1].items())
