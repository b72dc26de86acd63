"""The text of a training run: documents, tokenizer, batches, and the number of optimizer steps."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dataset.text.batches import Batch, TextBatches, eval_batches
from dataset.text.documents import Documents, open_documents
from dataset.text.token_cache import CACHE, open_tokens
from dataset.text.token_file import TokenFile
from dataset.text.tokenizer import TextTokenizer, make_tokenizer
from utils.distributed import Ranks, barrier, broadcast_object, errors_of_rank_0
from utils.errors import UserError
from utils.schedule import ComputedSteps
from utils.settings import TextConfig


@dataclass(frozen=True)
class TextData:
    """The text of a training run."""

    documents: Documents
    held_out: Documents
    tokenizer: TextTokenizer
    tokens: TokenFile | None  # None with streaming
    batches: TextBatches
    held_out_batches: list[Batch]

    def __str__(self) -> str:
        return (
            f"text: {self.documents.describe()}; held out: {self.held_out.describe()}\n"
            f"tokenizer: {self.tokenizer.name}, {self.tokenizer.vocab_size:,} ids\n"
            f"tokens: {'made as they are needed' if self.tokens is None else self.tokens}"
        )


def project_name(config: TextConfig) -> str:
    """The default project name of a run."""
    return "text" if config.data_files else config.data_name.split("/")[-1]


def open_text(config: TextConfig, source: Path | None, ranks: Ranks) -> TextData:
    """Open the text of a configuration; rank 0 downloads and tokenises what is missing while others wait. Collective.

    Args:
        config: configuration of the run.
        source: folder of the checkpoint that the run starts from, whose tokenizer is used; None: make a tokenizer.
        ranks: the rank of this process.

    Raises:
        UserError: text is missing, or the checkpoint's tokenizer is not the configured one.
    """
    documents, held_out = _open_documents(config, ranks)
    tokenizer = _choose_tokenizer(config, source, documents, ranks)
    held_out_batches = eval_batches(
        held_out,
        tokenizer,
        seq_len=config.seq_len,
        global_batch_size=config.global_batch_size,
        max_batches=config.eval_batches,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    tokens = None if documents.streaming else _open_tokens(config, documents, tokenizer, ranks)
    batches = TextBatches(
        documents,
        tokenizer,
        tokens=tokens,
        seq_len=config.seq_len,
        global_batch_size=config.global_batch_size,
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    return TextData(documents, held_out, tokenizer, tokens, batches, held_out_batches)


def plan_rows(config: TextConfig, keep: int) -> tuple[int, ComputedSteps]:
    """(number of optimizer steps, steps after which to evaluate), with `keep` steps on each batch.

    An evaluation follows each batch that reaches or passes a multiple of eval_interval sequences.

    Raises:
        UserError: max_sequences do not fill a single batch.
    """
    size, interval = config.global_batch_size, config.eval_interval or config.max_sequences
    batches = config.max_sequences // size
    if batches < 1:
        raise UserError(
            f"max_sequences={config.max_sequences} make no whole batch of global_batch_size={size}: use more sequences "
            "or a smaller batch."
        )
    evaluations = range(1, batches * size // interval + 1)
    return batches * keep, ComputedSteps(evaluations, lambda number: -(-number * interval // size) * keep)


def row_names(step: int, size: int, keep: int) -> list[str]:
    """The rows of the batch of `step`, numbered from 1 over the whole run as in train/sequences."""
    first = (step - 1) // keep * size
    return [f"row {number} of the run" for number in range(first + 1, first + size + 1)]


def _open_documents(config: TextConfig, ranks: Ranks) -> tuple[Documents, Documents]:
    """The training and the held-out documents."""
    if not ranks.is_main:
        barrier()
    documents = open_documents(
        config.data_files or config.data_name,
        validation=config.data_files_test or None,
        held_out=config.held_out,
        streaming=config.streaming,
        cache_folder=config.data_cache,
    )
    if ranks.is_main:
        barrier()
    return documents


def _open_tokens(config: TextConfig, documents: Documents, tokenizer: TextTokenizer, ranks: Ranks) -> TokenFile:
    """The tokens of the training documents, from a file that rank 0 makes if there is none.

    On a machine that does not see the folder of rank 0, the first process makes a file too.
    """
    folder = CACHE
    if config.token_cache is not None or config.data_cache is not None:
        folder = Path(config.token_cache or f"{config.data_cache}/tokens")
    with errors_of_rank_0():
        tokens = open_tokens(documents, tokenizer, folder, say=ranks.say) if ranks.is_main else None
    if tokens is None and ranks.local_rank == 0:
        tokens = open_tokens(documents, tokenizer, folder, say=ranks.say)
    barrier()
    return open_tokens(documents, tokenizer, folder, make=False) if tokens is None else tokens


def _choose_tokenizer(config: TextConfig, source: Path | None, documents: Documents, ranks: Ranks) -> TextTokenizer:
    """The tokenizer of the checkpoint, whose embedding rows are its ids; without a checkpoint, a new tokenizer."""
    if source is None:
        made = None
        if ranks.is_main:
            made = make_tokenizer(
                config.tokenizer,
                vocab_file=config.vocab_file,
                merges_file=config.merges_file,
                max_vocab=config.max_vocab,
                cap=config.cap,
                sample=islice(documents, config.cap_sample),
            )
        made = broadcast_object(made)
        assert made is not None
        return made
    tokenizer = TextTokenizer.load(source)
    own = {"tokenizer": tokenizer.name, "cap": tokenizer.cap, "max_vocab": tokenizer.vocab_size}
    wanted = {"tokenizer": config.tokenizer, "cap": config.cap, "max_vocab": config.max_vocab}
    differ = [key for key, value in wanted.items() if None not in (value, own[key]) and own[key] != value]
    if differ:
        raise UserError(
            f"{source}: the checkpoint was trained with another vocabulary: "
            + ", ".join(f"{key}={own[key]}, here {key}={wanted[key]}" for key in differ)
            + ". Its embedding means its own ids: leave these keys as they were."
        )
    return tokenizer
