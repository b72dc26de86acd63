"""The settings of every program: the only place for their types, bounds, defaults and meanings.

The keys of config/cfg_*.yaml, docs/configuration.md and `--help` are generated from these classes. After a change, run

    python -m scripts.generate_config
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from utils.constants import MAX_ACT_STEPS, MAX_SEED
from utils.machine import DeviceName
from utils.numerics import MatmulPrecision
from utils.optimizers import OptimizerName
from utils.schema import Schema

WandbMode = Literal["online", "offline", "disabled"]
LoggerName = Literal["wandb", "tensorboard"]
Variation = Literal["noise", "start", "views"]
TraceChoice = Literal["mixed", "failed", "solved", "slow", "random"]
# the key of a saved configuration that holds what `auto` came to on the machine of the run
RESOLVED = "resolved"


class Settings(Schema):
    """Settings that refuse unknown keys; the docstring of each field gives its meaning.

    Attributes:
        sections: heading -> names of fields, separated by spaces, in the order in which they are shown.
    """

    model_config = ConfigDict(extra="forbid")
    sections: ClassVar[dict[str, str]] = {}


# -- sections of a configuration ---------------------------------------------------------------------------------------


class LossConfig(Settings):
    """arch.loss"""

    name: str
    """The class of the loss head, as module@Class below models/."""
    loss_type: str
    """The loss of a token: stablemax_cross_entropy or softmax_cross_entropy."""


class ArchConfig(Settings):
    """arch: the class and its loss; all other keys belong to the class, which checks them (models.factory)."""

    model_config = ConfigDict(extra="allow")

    name: str
    """The class of the architecture, as module@Class below models/."""
    loss: LossConfig
    """The loss head around the architecture."""

    @property
    def own_keys(self) -> dict[str, Any]:
        """The keys that belong to the class."""
        return dict(self.model_extra or {})


class EvaluatorConfig(Settings):
    """One entry of evaluators: the class and its options."""

    model_config = ConfigDict(extra="allow")

    name: str
    """The rules of a task, as task@Title, or a class, as module@Class below evaluators/. Other keys are its options."""


class DataBuilderConfig(Settings):
    """data_builder: how to build a folder of data_paths that does not exist."""

    module: str
    """A module with `Config` and `build`: dataset.build_*_dataset, or dataset.tasks.TASK.build."""
    options: dict[str, Any] = {}
    """Fields of its `Config`; among them output_dir, the only folder of data_paths that is built."""
    given: list[str] = Field(default=[], exclude=True)
    """The options that the command line gives, which is filled in: data built with others are then refused."""


# -- training ----------------------------------------------------------------------------------------------------------


class OptimizationConfig(Settings):
    """How the dense weights are trained (`models.training.TrainState`)."""

    global_batch_size: int = Field(ge=1, le=1 << 20)
    """Rows per batch, over all processes."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the weights, the order of the data, its augmentation and the exploration of halting."""
    optimizer: OptimizerName = "adam_atan2"
    """Optimizer of the dense weights. muon: of URM, for all matrices; muon_hidden: of PyTorch, for those in the blocks.
    Both have AdamW for the rest. adam_atan2_cuda needs the package adam-atan2."""
    lr: float = Field(ge=0, le=1000)
    """Peak learning rate of the dense weights."""
    adamw_lr_ratio: float = Field(default=1.0, gt=0, le=1000)
    """With optimizer=muon_hidden, the learning rate of AdamW as a fraction of that of Muon, which is lr."""
    lr_min_ratio: float = Field(default=1.0, ge=0, le=1)
    """Final learning rate as a fraction of the peak, reached by cosine decay. 1.0: constant."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the optimizer's running average of gradients."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the optimizer's running average of squared gradients."""
    weight_decay: float = Field(default=0.1, ge=0, le=1000)
    """Decoupled weight decay: each step shrinks the weights by this times the learning rate."""
    grad_clip_norm: float | None = Field(default=None, gt=0, le=1e9)
    """Maximum norm of the gradient of the dense weights; larger gradients are scaled down. null: no clipping."""
    grad_accum_steps: int = Field(default=1, ge=1)
    """Micro-batches per step, a divisor of the batch size: the same result with less memory."""
    activation_checkpointing: bool = False
    """Keep only layer inputs for the backward pass and recompute the rest: less memory, more time."""
    ema: bool = False
    """Keep an exponential moving average of the weights, and evaluate and save that average."""
    ema_rate: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the moving average: the fraction of it that each step keeps."""


class TrainingConfig(OptimizationConfig):
    """The settings that the training programs share: the model, the optimization, the run and the machine."""

    arch: ArchConfig
    """arch=NAME selects config/arch/NAME.yaml; arch.KEY=VALUE changes one of its keys."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this optimizer step; the schedule still spans the full length. null: run to the end."""
    eval_halt_max_steps: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """ACT steps per example in evaluation. null: arch.halt_max_steps, as in training."""
    project_name: str | None = None
    """W&B project and the folder of the run folder (or group/name). null: WANDB_PROJECT, else named after the data."""
    run_name: str | None = None
    """Name of the run and of its folder (group/name: in a folder group). null: WANDB_NAME, else generated."""
    checkpoint_path: str | None = None
    """The run folder. null: checkpoints/{project_name}/{run_name}."""
    load_checkpoint: str | None = None
    """latest, a run folder or step_N_train_state.pt: resume. step_N, *.safetensors: a new run from these weights."""
    checkpoint_every_eval: bool = True
    """Save a checkpoint after each evaluation. The last step is always saved."""
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    """Also save a checkpoint after every so many steps. null: do not."""
    checkpoint_every_minutes: float | None = Field(default=15, gt=0, le=1e6)
    """Also save a checkpoint if the last one is so many minutes old. null: do not."""
    keep_train_states: int = Field(default=2, ge=1)
    """Number of train states to keep. Of older ones only the weights stay, and those only if they were evaluated."""
    keep_last: int | None = Field(default=None, ge=1)
    """Keep the weights of this many of the newest evaluations. null: of all, unless keep_best is set."""
    keep_best: int | None = Field(default=None, ge=1)
    """Keep the weights of this many of the best evaluations by keep_best_by. null: of all, unless keep_last is set."""
    keep_best_by: str = "all/exact_accuracy"
    """The metric of keep_best. Of a loss or a perplexity the lowest is best, of others the highest."""
    frozen_rank_seconds: float = Field(default=90, ge=2, le=86400)
    """With several processes, end the run if one of them gives no sign of life for this long."""
    on_divergence: Literal["stop", "skip"] = "stop"
    """If the loss is not finite or explodes: stop, or go back to the last checkpoint and leave those batches out."""
    divergence_factor: float | None = Field(default=4.0, gt=1)
    """The loss explodes if it exceeds that of guessing this many times for 100 steps. null: only if not finite."""
    wandb_mode: WandbMode | None = None
    """How to log to W&B. null: WANDB_MODE, else online if you are logged in, else disabled."""
    logger: list[LoggerName] = ["wandb"]
    """Where to log to besides the files: wandb, tensorboard (files in tensorboard/ of the run folder), both or none."""
    report: bool = True
    """At the end, write report.html into the run folder: curves, evaluations and what stands out."""
    device: DeviceName = "auto"
    """Where to compute. auto: the first of cuda, mps and cpu that this machine has."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the model. auto: on CUDA, and for long puzzle runs on a CPU. false: no fused operators either."""
    matmul_precision: MatmulPrecision = "highest"
    """Precision of fp32 products on CUDA. highest: fp32, high: TF32. Products in bfloat16 do not depend on it."""
    deterministic: bool = False
    """Let GPUs add in a fixed order, so that a run repeated on the same machine gives the same bits; slower."""
    num_workers: int | None = Field(default=None, ge=0, le=1000)
    """Processes that load batches if the data is not on the device. null: 1 on CUDA, otherwise 0."""

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> "TrainingConfig":
        if self.global_batch_size % self.grad_accum_steps:
            raise ValueError(
                f"grad_accum_steps {self.grad_accum_steps} does not divide global_batch_size {self.global_batch_size}"
            )
        return self


class PretrainConfig(TrainingConfig, defaults={"global_batch_size": 768, "lr": 1e-4}):
    """Settings of pretrain.py. Keys that the published code has keep their published defaults."""

    sections = {
        "data": "data_paths data_paths_test evaluators augmentation data_builder",
        "architecture": "arch",
        "length": "global_batch_size epochs max_steps",
        "evaluation": "eval_interval min_eval_interval eval_halt_max_steps eval_early_halting eval_halt_threshold "
        "eval_halt_unchanged eval_batch_size eval_max_examples eval_save_outputs eval_traces",
        "optimization": "optimizer lr adamw_lr_ratio lr_min_ratio lr_warmup_steps beta1 beta2 weight_decay "
        "puzzle_emb_lr puzzle_emb_weight_decay grad_clip_norm grad_accum_steps activation_checkpointing ema ema_rate "
        "freeze_weights seed",
        "the run": "project_name run_name checkpoint_path load_checkpoint checkpoint_every_eval checkpoint_every_steps "
        "checkpoint_every_minutes keep_train_states keep_last keep_best keep_best_by on_divergence divergence_factor "
        "show_example report logger wandb_mode",
        "the machine": "device compile matmul_precision deterministic data_on_device num_workers frozen_rank_seconds",
    }

    data_paths: list[str] = ["data/arc-aug-1000"]
    """Data sets: folders with shards in train/ and test/."""
    data_paths_test: list[str] = []
    """Data sets to evaluate on. Empty: test/ of data_paths."""
    evaluators: list[EvaluatorConfig] = [EvaluatorConfig(name="arc@ARC")]
    """Evaluators beyond token accuracy: classes below evaluators/, with their options."""
    augmentation: str | None = None
    """Task whose symmetries are drawn at random for each training example. null: use examples as stored."""
    data_builder: DataBuilderConfig | None = None
    """How to build missing data: {module, options}, into options.output_dir alone. null: all data must exist."""
    epochs: int = Field(default=100000, ge=1, le=10**12)
    """Length of training. An epoch takes one puzzle from each group."""
    eval_interval: int | None = Field(default=10000, ge=1)
    """Epochs between evaluations. Must divide epochs. null: evaluate at the end only."""
    min_eval_interval: int | None = Field(default=0, ge=0)
    """Index of the first evaluation; earlier ones are skipped. null: 0."""
    eval_early_halting: bool = False
    """Replace an example by the next as soon as it halts, according to the next two settings."""
    eval_halt_threshold: float = Field(default=0.5, ge=0, lt=1)
    """Halt only if the predicted probability of being correct exceeds this. 0.5: q_halt > 0, as published."""
    eval_halt_unchanged: bool = True
    """Halt only if the answer equals that of the previous step. false: do not compare, as published."""
    eval_batch_size: int | None = Field(default=None, ge=1, le=1 << 20)
    """Examples evaluated at once, over all processes. null: global_batch_size."""
    eval_max_examples: int | None = Field(default=None, ge=1)
    """Evaluate on a random subset of this size, the same in every evaluation. null: all examples."""
    eval_save_outputs: list[str] = []
    """Tensors to save in evaluations: inputs, labels, puzzle_identifiers, preds, logits, q_halt_logits, ..."""
    eval_traces: int = Field(default=8, ge=0, le=1000)
    """Examples, failed and solved, to record step by step in each evaluation, for W&B and trace.npz. 0: none."""
    lr_warmup_steps: int = Field(default=2000, ge=0)
    """Optimizer steps over which the learning rates rise linearly from 0."""
    puzzle_emb_lr: float = Field(default=1e-2, ge=0, le=1000)
    """Peak learning rate of the puzzle embeddings."""
    puzzle_emb_weight_decay: float = Field(default=0.1, ge=0, le=1000)
    """Weight decay of the puzzle embeddings."""
    freeze_weights: bool = False
    """Train only the puzzle embeddings."""
    show_example: bool = True
    """At the end, draw how a held-out puzzle is solved."""
    data_on_device: bool | Literal["auto"] = "auto"
    """Keep the training data on the device. auto: on CUDA, if it fits in a quarter of the free memory."""

    @model_validator(mode="after")
    def _evaluations_fit(self) -> "PretrainConfig":
        interval = self.eval_interval
        if interval is not None and self.epochs % interval:
            small = [d for d in range(1, math.isqrt(self.epochs) + 1) if self.epochs % d == 0]
            divisor = max(d for d in [*small, *(self.epochs // d for d in small)] if d <= interval)
            raise ValueError(
                f"eval_interval {interval} does not divide epochs {self.epochs}: use for example "
                f"eval_interval={divisor}, or eval_interval=null to evaluate at the end only"
            )
        return self


class TextConfig(
    TrainingConfig,
    defaults={
        "global_batch_size": 64,
        "seed": 42,
        "optimizer": "adamw",
        "lr": 1e-2,
        "lr_min_ratio": 0.01,
        "weight_decay": 0.0,
        "grad_clip_norm": 1.0,
        "keep_best_by": "eval/perplexity",
    },
):
    """Settings of pretrain_text.py."""

    sections = {
        "data": "data_files data_files_test held_out data_name data_cache token_cache streaming seq_len",
        "tokenizer": "tokenizer vocab_file merges_file max_vocab cap cap_sample",
        "architecture": "arch",
        "length": "max_sequences max_steps global_batch_size",
        "evaluation": "eval_interval eval_batches eval_halt_max_steps",
        "optimization": "optimizer lr adamw_lr_ratio lr_min_ratio lr_warmup_ratio beta1 beta2 weight_decay "
        "grad_clip_norm grad_accum_steps activation_checkpointing ema ema_rate seed",
        "the run": "project_name run_name checkpoint_path load_checkpoint checkpoint_every_eval checkpoint_every_steps "
        "checkpoint_every_minutes keep_train_states keep_last keep_best keep_best_by on_divergence divergence_factor "
        "report logger wandb_mode",
        "the machine": "device compile matmul_precision deterministic num_workers frozen_rank_seconds",
    }

    data_files: list[str] = []
    """Files, folders or globs: .txt with <|endoftext|> between documents, or .jsonl. Empty: data set data_name."""
    data_files_test: list[str] = []
    """Held-out files. Empty: files or splits with "valid" in their names, else the fraction held_out."""
    held_out: float = Field(default=0.02, gt=0, lt=1)
    """Fraction of the documents to hold out if there are no other documents to evaluate on."""
    data_name: str = "roneneldan/TinyStories"
    """Data set on the Hugging Face hub."""
    data_cache: str | None = None
    """Folder that caches the data set. null: data/hf/ and the last part of data_name."""
    token_cache: str | None = None
    """Folder of the files of tokens, written unless streaming. null: tokens/ in data_cache, else data/tokens/."""
    streaming: bool = False
    """Read documents as they are needed. false: tokenise all of them once, before the first run on them."""
    seq_len: int = Field(default=512, ge=2, le=1 << 20)
    """Tokens per row. Several documents may share a row."""
    tokenizer: str = "gpt-neo-10k"
    """gpt-neo-10k, gpt-neo, gpt2 or an owner/repo on the Hugging Face hub."""
    vocab_file: str | None = None
    """Local vocab.json of a byte-level BPE. null: that of the tokenizer, from the hub."""
    merges_file: str | None = None
    """merges.txt that belongs to vocab_file. null: that of the tokenizer, from the hub."""
    max_vocab: int | None = Field(default=None, ge=1)
    """Number of tokens to keep. null: all, but 10,000 with gpt-neo-10k."""
    cap: Literal["frequency", "lowest_ids"] = "frequency"
    """Which tokens to keep: the most frequent, or those with the lowest ids, as published."""
    cap_sample: int = Field(default=20000, ge=1)
    """Number of documents in which token frequencies are counted."""
    max_sequences: int = Field(default=2_100_000, ge=1, le=10**15)
    """Rows to train on. Each batch is used for arch.halt_max_steps steps, but its rows count once."""
    eval_interval: int | None = Field(default=10_000, ge=1)
    """Rows between evaluations. null: evaluate at the end only."""
    eval_batches: int = Field(default=10, ge=1)
    """Held-out batches per evaluation."""
    lr_warmup_ratio: float = Field(default=0.02, ge=0, le=1)
    """Fraction of all optimizer steps over which the learning rate rises linearly from 0."""


# -- evaluation and generation -----------------------------------------------------------------------------------------


class CheckpointConfig(Settings):
    """Which checkpoint to evaluate, on which data and machine."""

    load_checkpoint: str
    """The weights: a file step_N or *.safetensors, or a run folder, whose newest whole weights are used."""
    load_config: str | None = None
    """The configuration of the training run. null: the all_config.yaml next to the weights."""
    arch: dict[str, Any] = {}
    """Keys of the architecture. Values that differ from the checkpoint's are refused unless force=true."""
    force: bool = False
    """Evaluate with the keys of arch even if they differ from those of the checkpoint."""
    data_paths: list[str] = []
    """Data sets to evaluate on. Empty: data_paths_test of the training run, else its data_paths."""
    data_paths_test: list[str] = []
    """Data sets that take precedence over data_paths, as in training."""
    split: Literal["train", "test"] = "test"
    """The split of the data sets to evaluate on."""
    eval_max_examples: int | None = Field(default=None, ge=1)
    """Evaluate on a random subset of this size, drawn with seed. null: all examples."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the subset that eval_max_examples asks for."""
    save_path: str | None = None
    """Folder for the results. null: evaluations/{run}-{step}, with a number appended if it holds results."""
    device: DeviceName = "auto"
    """Where to compute. auto: the first of cuda, mps and cpu that this machine has."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the model. auto: on CUDA. false: no fused operators either."""


class EvaluateConfig(CheckpointConfig):
    """Settings of evaluate.py."""

    sections = {
        "the checkpoint": "load_checkpoint load_config arch force",
        "data": "data_paths data_paths_test split evaluators eval_max_examples eval_save_outputs blank_puzzle_id seed",
        "halting": "halt_max_steps early_halting halt_threshold halt_unchanged",
        "rollouts": "restarts vary noise selectors beta curve",
        "a look inside": "trace trace_choice trace_inner trace_beside depth show_example",
        "the run": "global_batch_size save_path device compile",
    }

    evaluators: list[EvaluatorConfig] | None = None
    """Evaluators beyond token accuracy: classes below evaluators/. null: as in training."""
    eval_save_outputs: list[str] = []
    """Tensors to save: inputs, labels, puzzle_identifiers, preds, logits, q_halt_logits, ..."""
    blank_puzzle_id: bool = False
    """Evaluate a second time with the blank puzzle id, as for puzzles that the model does not know."""
    halt_max_steps: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """ACT steps per example. null: as in the evaluations of the training run."""
    early_halting: bool = False
    """Replace an example by the next as soon as it halts, according to the next two settings."""
    halt_threshold: float = Field(default=0.5, ge=0, lt=1)
    """Halt only if the predicted probability of being correct exceeds this. 0.5: q_halt > 0, as published."""
    halt_unchanged: bool = True
    """Halt only if the answer equals that of the previous step. false: do not compare, as published."""
    global_batch_size: int | None = Field(default=None, ge=1, le=1 << 20)
    """Examples evaluated at once, over all processes. null: 128 per process; on CUDA as many as fit in memory."""
    restarts: int = Field(default=1, ge=1, le=4096)
    """Also answer each example by so many rollouts of halt_max_steps, and report what each selector takes. 1: none."""
    vary: Variation = "noise"
    """How rollouts differ: noise on the latents at each step, the start of the latents, or symmetric views."""
    noise: float = Field(default=0.3, ge=0, le=100)
    """Standard deviation of the noise that noise and start add to the latents."""
    selectors: list[str] = []
    """last, halting_head, first_to_halt, smallest_residual, most_confident, majority, particle_filter or verifier.
    Empty: all but particle_filter, and verifier only if the task has rules."""
    beta: float = Field(default=0.25, ge=0, le=1000)
    """How strongly the halting head guides a particle filter."""
    curve: bool = True
    """Report for 1, 2, 4, ... rollouts and steps too. false: for all only, and skip what no longer matters."""
    trace: int = Field(default=0, ge=0, le=100_000)
    """Record step by step how so many examples are answered: trace.npz, .html, .gif and .png. 0: none."""
    trace_choice: TraceChoice | list[Annotated[int, Field(ge=0)]] = "mixed"
    """Which ones: failed, solved, mixed (half of both), slow, random, or a list of places in the set."""
    trace_inner: bool = False
    """Also record every inner update of the latents."""
    trace_beside: list[str] = []
    """Files trace.npz of other runs, to be shown in trace.html beside this one on the same puzzles."""
    depth: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """Also go on to so many steps, and report after 16, 32, 64, ... of them what is right and what was lost again."""
    show_example: bool = False
    """Draw how an example is solved."""


class SearchConfig(CheckpointConfig):
    """Settings of search.py."""

    sections = {
        "the checkpoint": "load_checkpoint load_config arch force",
        "data": "data_paths data_paths_test split eval_max_examples seed",
        "the search": "chains rounds conflict_threshold dropout loops seconds rows",
        "a systematic search, by the rules as well": "propagate call_depth",
        "the run": "save_path device compile",
    }

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the search, and of the subset that eval_max_examples asks for."""
    chains: int = Field(default=64, ge=1, le=1 << 20)
    """Chains of each puzzle, which are searched at the same time."""
    rounds: int = Field(default=1000, ge=1, le=10**9)
    """Rounds after which a puzzle is left undecided. In a round, each chain takes one step."""
    conflict_threshold: float = Field(default=0.6, gt=0, lt=1)
    """A chain starts again if the conflict head gives a higher probability than this."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout rate during the search, which makes the chains differ."""
    loops: int | None = Field(default=None, ge=1, le=1000)
    """Loops of the network in each call. null: as in training."""
    seconds: float | None = Field(default=None, gt=0, le=1e9)
    """Stop after this time, and leave the remaining puzzles undecided. null: no limit."""
    rows: int = Field(default=512, ge=1, le=1 << 20)
    """Rows of the network's batch in each process; rows // chains puzzles are searched at once, but at least one."""
    propagate: bool = False
    """Search systematically: the rules close branches, and the network says which to try first. A puzzle has one row
    then, a round is one candidate that is tried, and chains, conflict_threshold and dropout play no part."""
    call_depth: int | None = Field(default=1, ge=0, le=10**6)
    """With propagate, call the network where fewer candidates than this are assumed. 0: never; null: everywhere."""


class ExportConfig(Settings):
    """Settings of export.py."""

    sections = {
        "the model": "load_checkpoint task seq_len",
        "the file": "format output int8 int8_points",
        "the check": "check_puzzles halt_max_steps",
        "the page": "onnxruntime_web",
    }

    load_checkpoint: str | None = None
    """A name in weights/, a run folder, a file step_N or a saved folder. null: format=web shows all of weights/."""
    task: str | None = None
    """The task of a checkpoint that does not say it."""
    seq_len: int | None = Field(default=None, ge=1)
    """Tokens of a puzzle, for a checkpoint that does not say it."""
    format: Literal["onnx", "torch", "safetensors", "web"] = "onnx"
    """What to write: an ONNX file, a torch.export program, a folder with safetensors, or a page for the browser."""
    output: str | None = None
    """The file or folder to write. null: exports/{model} with the suffix of the format."""
    int8: bool = False
    """Store the weights of onnx and web in 8 bits."""
    int8_points: float = Field(default=0.5, ge=0, le=100)
    """Points of exact accuracy that int8 may lose without being refused; 100 accepts any loss."""
    check_puzzles: int = Field(default=100, ge=1, le=100_000)
    """Puzzles on which what was written is compared with the model."""
    halt_max_steps: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """ACT steps of the comparison. null: as in the evaluations of the training run, at most 16."""
    onnxruntime_web: str | None = None
    """The npm package onnxruntime-web as a folder or a .tgz file. null: npm fetches it."""


class GenerateConfig(Settings):
    """Settings of generate.py."""

    sections = {
        "the checkpoint and the prompts": "load_checkpoint prompts prompts_file",
        "sampling: one value or a list; of several lists, every combination": "temperature top_k seed",
        "the run": "max_new_tokens halting halt_max_steps batch_size output device",
    }

    load_checkpoint: str
    """The weights: a file step_N or *.safetensors, or a run folder, whose newest whole weights are used."""
    prompts: list[str] = []
    """Texts to continue. From an empty text, the model starts a story of its own."""
    prompts_file: str | None = None
    """File with one prompt per line, in addition to prompts. null: none."""
    temperature: list[Annotated[float, Field(ge=0, le=1000)]] = Field(default=[0.8], min_length=1)
    """Sampling temperatures. 0: always the most probable token."""
    top_k: list[Annotated[int, Field(ge=1)] | None] = Field(default=[40], min_length=1)
    """Sample among this many of the most probable tokens. null: among all tokens."""
    seed: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(default=[0], min_length=1)
    """Seeds. A story depends only on its prompt, its settings and its seed."""
    max_new_tokens: int = Field(default=400, ge=1)
    """Number of tokens after which an unfinished story is cut off."""
    halting: bool = False
    """Take each token from the ACT step at which its position halts. false: from the last step."""
    halt_max_steps: int | None = Field(default=None, ge=1, le=MAX_ACT_STEPS)
    """ACT steps. null: as in the evaluations of the training run."""
    batch_size: int = Field(default=16, ge=1)
    """Stories generated at once."""
    output: str | None = None
    """File for the stories. null: stories/{run}-{step}.jsonl, with a number appended if it exists."""
    device: DeviceName = "auto"
    """Where to compute. auto: the first of cuda, mps and cpu that this machine has."""

    @field_validator("temperature", "top_k", "seed", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @field_validator("prompts", mode="before")
    @classmethod
    def _prompts_are_text(cls, value: Any) -> Any:
        return [str(prompt) for prompt in value] if isinstance(value, list) else value
