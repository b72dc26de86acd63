"""Replays the recorded runs of the LDT: four training steps, deduction steps, symmetries and a search."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluators.search import SearchRule, search
from models.lattice.lattice import Deduction, given_cells, in_conflict, surviving
from models.lattice.losses import lattice_losses
from models.lattice.symmetry import Symmetry, cell_permutations
from models.recursive_reasoning.ldt import Choose, LatticeDeductionTransformer
from tests.models.recorded import Recording
from tests.models.small_lattice import MIDDLE, board_of, one_hot, tokens_of


def model_of(recording: Recording, symmetries: bool = True) -> LatticeDeductionTransformer:
    """The recorded model with its initial weights."""
    recorded = recording.config["model"]
    model = LatticeDeductionTransformer(
        {
            "vocab_size": recorded["n_channels"] + 2,
            "seq_len": recorded["seq_len"],
            "hidden_size": recorded["dim"],
            "num_heads": recorded["n_heads"],
            "L_layers": recorded["num_layers"],
            "n_loops": recorded["n_loops"],
            "expansion": recorded["ffn_mult"],
            "rope_theta": recorded["rope_base"],
            "pos_encodings": "rope" if recorded["use_rope"] else "learned",
            "kill_threshold": recording.config["threshold"],
            "conflict_threshold": recording.config["cls_threshold"],
            "temperature": recording.config["temp_decide"],
            "symmetries": symmetries,
            "halt_max_steps": recording.config["max_age"],
        }
    )
    model.network.load_state_dict(recording.under("init/"), strict=True)
    return model


def is_key_bias(name: str) -> bool:
    """Whether a parameter is, or contains, the bias of the keys, whose gradient is rounding error alone."""
    return name.endswith(("attn.in_proj_bias", "attn.k_proj.bias"))


def without_key_bias(name: str, value: Tensor) -> Tensor:
    """`value` with the part that belongs to the bias of the keys set to 0."""
    if name.endswith("attn.k_proj.bias"):
        return torch.zeros_like(value)
    third = len(value) // 3
    return torch.cat((value[:third], torch.zeros(third), value[2 * third :]))


def check_parameter(recording: Recording, key: str, name: str, value: Tensor) -> None:
    """Compare a parameter, or its gradient, with the recording."""
    if is_key_bias(name):
        recording.arrays[key] = without_key_bias(name, torch.tensor(recording.arrays[key])).numpy()
        value = without_key_bias(name, value.detach())
    recording.check(key, value)


def replaying(draws: dict[str, Tensor], first: int = 0) -> Choose:
    """Decides as recorded; the recording lists cells and then candidates for the deciding rows alone."""

    def choose(found: Deduction, logits: Tensor) -> tuple[Tensor, Tensor]:
        cells, candidates = (torch.zeros(len(logits), dtype=torch.int64) for _ in range(2))
        if found.undecided.any():
            cells[found.undecided] = draws[f"multinomial{first}"].squeeze(1)
            candidates[found.undecided] = draws[f"multinomial{first + 1}"].squeeze(1)
        return cells, candidates

    return choose


def replay_training(run: Path) -> None:
    """Losses, gradients, weights and deduction steps of four steps of training."""
    recording = Recording(run, tolerance=1e-4)
    config, model = recording.config, model_of(recording)
    network = model.network
    batch = {name: x.bool() for name, x in recording.under("step1/batch/").items() if name != "sym_digit_perm"}
    solutions, puzzle, lattice = batch["solutions"], batch["orig_x"], batch["state"]
    given, age = given_cells(puzzle), 0
    asked = torch.ones_like(given)
    alpha = solutions.any(1)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config["lr"], betas=tuple(config["betas"]), weight_decay=config["weight_decay"]
    )
    for step in range(1, 5):
        at = f"step{step}/"
        alpha = surviving(lattice, solutions, alpha)
        conflict = in_conflict(lattice, alpha, asked)
        recording.check(at + "state", lattice.float())
        recording.check(at + "alpha", alpha.float())
        recording.check(at + "gt_conflict_pre", conflict)

        logits = network(lattice)
        weights = config["bce_pos_mult"], config["bce_neg_mult"]
        keep, digit, conflict_loss = lattice_losses(logits, lattice, alpha, given, asked, conflict, *weights)
        loss = keep + config["softmax_loss_weight"] * digit + config["conflict_loss_weight"] * conflict_loss
        for name, value in (("bce", keep), ("softmax", digit), ("conflict", conflict_loss)):
            recording.check(f"{at}loss_part/{name}", value)
        recording.check(at + "loss", loss)
        recording.check(at + "out/conflict", logits.conflict.unsqueeze(-1))
        if step == 1:
            recording.check("step1/out/bce", logits.keep)
            recording.check("step1/out/softmax", logits.digit)
            recording.check("step1/out/cls", torch.stack([cls for _, cls in network.vectors(lattice)]))
        loss.backward()
        if step == 1:
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                check_parameter(recording, f"step1/grad/{name}", name, parameter.grad)
        if digit == 0:
            # the published loss has no such term then, so that its optimizer leaves the head out of the step
            for parameter in network.softmax_head.parameters():
                assert parameter.grad is not None
                assert not parameter.grad.any()
                parameter.grad = None
        recording.check(at + "grad_norm", torch.nn.utils.clip_grad_norm_(network.parameters(), config["grad_clip"]))
        for group in optimizer.param_groups:
            group["lr"] = float(recording.arrays[at + "lr"])
        recording.unchecked.discard(at + "lr")
        optimizer.step()
        optimizer.zero_grad()
        if step in (1, 2, 4):
            for name, parameter in network.named_parameters():
                check_parameter(recording, f"{at}weights/{name}", name, parameter)

        found, out = model.step(lattice, given, replaying(recording.under(at + "dpll/draw/")))
        recording.check(at + "dpll/deduce_mask", found.killed)
        recording.check(at + "dpll/new_state", found.lattice.float())
        recording.check(at + "dpll/conflict", found.conflict)
        recording.check(at + "dpll/solved", found.solved)
        recording.check(at + "dpll/n_deduced", found.killed.sum())
        recording.check(at + "dpll/n_decided", found.undecided.sum())
        recording.check(at + "dpll/n_conflict", found.conflict.sum())
        recording.check(at + "dpll/n_solved", found.solved.sum())
        by_head = out.conflict.sigmoid() > config["cls_threshold"]
        is_empty = ((lattice & ~found.killed).sum(-1) == 0).any(-1)
        recording.check(at + "dpll/n_conflict_empty", is_empty.sum())
        recording.check(at + "dpll/n_conflict_cls", by_head.sum())
        if step == 1:
            recording.check("step1/dpll/out/bce", out.keep)
            recording.check("step1/dpll/out/softmax", out.digit)
            recording.check("step1/dpll/out/conflict", out.conflict.unsqueeze(-1))
            recording.check("step1/dpll/out/cls", list(network.vectors(lattice))[-1][1])

        after, age = in_conflict(found.lattice, alpha, asked), age + 1
        recording.check(at + "gt_conflict_post", after)
        too_old = torch.full_like(after, age > config["max_age"])
        recording.check(at + "discard", found.solved | found.conflict & after | too_old)
        lattice = found.lattice

    with torch.no_grad():
        each = network(batch["state"])
        cls = torch.stack([vector for _, vector in network.vectors(batch["state"])]).mean(0)
        for name, value in (("bce", each.keep.mean(0)), ("softmax", each.digit.mean(0)), ("cls", cls)):
            recording.check(f"eval/mean/{name}", value)
        recording.check("eval/mean/conflict", network.conflict_head(cls))
    left = {key for key in recording.unchecked if not key.startswith(("solve/", "sym/")) and "/draw/" not in key}
    assert not left


def replay_symmetries(run: Path) -> None:
    """The symmetries of the grid and of the digits."""
    recording = Recording(run, tolerance=0)
    digits = torch.tensor(recording.arrays["step1/batch/sym_digit_perm"])
    state = torch.tensor(recording.arrays["step1/batch/state"])
    permutations = cell_permutations(board_of(MIDDLE).model_copy(update={"turns": list(range(8))}))
    recording.check("sym/cell_perms", permutations)
    symmetry = Symmetry(permutations[: len(digits)], digits)
    applied = symmetry.apply(state)
    recording.check("sym/applied", applied)
    recording.check("sym/back", symmetry.undo(applied))
    assert torch.equal(symmetry.undo(applied), state)
    assert not torch.equal(applied[0], state[0])


def replay_search(run: Path) -> None:
    """The recorded search takes the first board without conflict for the solution; here everything is accepted, too."""
    recording = Recording(run, tolerance=1e-4)
    settings, model = recording.config["solve"], model_of(recording, symmetries=False)
    weights = recording.under("step4/weights/")
    model.network.load_state_dict(model.network.state_dict() | weights)
    puzzles = torch.tensor(recording.arrays["step1/batch/solve_x"]).bool()
    draws = recording.under("solve/draw/")
    result = search(
        model.eval(),
        tokens_of(puzzles).numpy(),
        lambda inputs, answers: np.ones(len(inputs), dtype=bool),
        SearchRule(settings["n_chains"], settings["max_rounds"], settings["cls_threshold"], dropout=0.0),
        slots=settings["batch_size"] // settings["n_chains"],
        choose_in_round=lambda number, _: replaying(draws, 2 * number),
    )
    recording.check("solve/solved", torch.from_numpy(result.solved))
    recording.check("solve/timeouts", torch.from_numpy(~result.solved))
    recording.check("solve/n_resets", torch.from_numpy(result.restarts))
    recording.check("solve/puzzle_calls", torch.from_numpy(result.rounds))
    recording.check("solve/round_solved", torch.from_numpy(np.where(result.solved, result.rounds - 1, -1)))
    recording.check("solve/model_calls", torch.tensor(result.calls))
    answers = one_hot(torch.from_numpy(result.answers), model.network.candidates)
    solutions = torch.tensor(recording.arrays["solve/solution"])
    assert result.solved.any()
    assert torch.equal(answers[result.solved].float(), solutions[result.solved])
