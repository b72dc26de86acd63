"""Every place of the program where the host waits for the device, outside the training step, and why it may."""

from tests.fake_cuda.device import FakeCuda

# part of the program -> {`file: function`: reason}
WAITS = {
    "metrics": {
        "utils/distributed.py: SummedScalars.read": (
            "the metrics of a step are read when the next step has been launched, all in one copy"
        ),
        "models/training.py: StepMetrics.read": "the norm of the gradients, computed before the metrics it follows",
    },
    "first step of several ranks": {
        "utils/distributed.py: GradientSum._make_buckets": "the order in which gradients are sent, that of rank 0"
    },
    "checkpoint": {
        "models/training.py: _copy": "parameters, averages and the state of the optimizer are copied to be saved",
        "utils/distributed.py: gather_rows": "so is the carry, of all ranks on rank 0",
    },
    "resume": {
        "models/training.py: TrainState.load_state_dict": "the state of a file is copied to the device, once a run",
        "models/ema.py: EMA.load_state_dict": "so are the averages",
        "models/training.py: _load_optimizer_state": "so is the state of the optimizer",
    },
    "evaluation": {
        "evaluators/evaluation.py: _to_device": "a batch is copied, once for all its steps",
        "evaluators/answers.py: _Slots._step": (
            "which examples have finished decides which ones take their slots; the host reads it once a step"
        ),
        "evaluators/answers.py: _Slots._place": "the rows of new examples and of their slots, two numbers for each",
        "evaluators/answers.py: _Slots._keep": "the slots that have finished and their rows, known only to the host",
        "utils/distributed.py: SummedScalars.read": "the sums of a whole set",
    },
    "last examples": {
        "evaluators/answers.py: _Slots._shrink": "the slots that stay when no example waits any more",
    },
    "ARC": {
        "evaluators/arc.py: ARC.ballots": "votes are counted in dictionaries of the host, from finished answers",
    },
    "ARC of several ranks": {"evaluators/arc.py: ARC.result": "rank 0 collects the votes, once an evaluation"},
    "saved outputs": {
        "evaluators/evaluation.py: evaluate_set": "outputs that eval_save_outputs names are kept for a file",
    },
    "picture": {
        "evaluators/evaluation.py: solve_example": "one example is shown at the end of a run",
        "evaluators/evaluation.py: _solve": "its candidates are chosen by numbers of the host",
    },
    "language": {
        "evaluators/language.py: evaluate_language": "a batch is copied, once for all its steps",
        "utils/distributed.py: SummedScalars.read": "the sums over the held-out text",
    },
    "language of several steps": {
        "models/text/model.py: TextModel.answers": "the steps end when all positions have settled, which saves most"
    },
    "search": {
        "evaluators/search.py: _Search._fill": "the clues of a puzzle that takes a slot",
        "evaluators/search.py: _Search._round": "which chains are solved, once a round",
        "evaluators/search.py: _Search._check": "which chains are checked, and which of them start again",
        "evaluators/search.py: _Search._boards": "solved boards, whose rules are checked on the host",
        "evaluators/search.py: _Search._leave": "how often the chains of a puzzle restarted, once for each puzzle",
    },
    "data on the device": {
        "dataset/device_feed.py: ResidentTokens.__init__": "all examples are copied before the first step",
    },
}  # fmt: skip


def check_waits(device: FakeCuda, *parts: str) -> None:
    """Assert that the program waited at all the places of these parts, and nowhere else."""
    found = {place for place in device.waits if not place.startswith(("tests/", "torch"))}
    justified = {place for part in parts for place in WAITS[part]}
    assert found == justified, f"not justified: {sorted(found - justified)}; not met: {sorted(justified - found)}"
