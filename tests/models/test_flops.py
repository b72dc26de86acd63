"""The count of floating-point operations against a count by hand."""

from models.flops import flops_of_run, flops_per_example, training_flops_per_example
from utils.settings import ArchConfig, LossConfig

LOSS = LossConfig(name="losses@ACTLossHead", loss_type="stablemax_cross_entropy")


def trm(**keys: object) -> ArchConfig:
    sizes = {"hidden_size": 512, "num_heads": 8, "L_layers": 2, "puzzle_emb_ndim": 512, "puzzle_emb_len": 16}
    return ArchConfig(name="recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", loss=LOSS, **sizes, **keys)


def test_trm_mlp_on_sudoku():
    positions, hidden, passes = 97, 512, 2 * (14 + 3 * 7)  # 2 layers, 14 passes forward, 7 forward and backward
    channels = 2 * positions * hidden * 3 * 1536
    tokens = 2 * hidden * positions * 3 * 512
    # both heads, each with two backward products
    heads = 3 * 2 * hidden * (positions * 11 + 2)
    assert flops_per_example(trm(mlp_t=True, pos_encodings="none"), 11, 81) == passes * (channels + tokens) + heads


def test_trm_attention_on_a_maze():
    positions, hidden, passes = 916, 512, 2 * (14 + 3 * 7)
    layer = 2 * positions * hidden * (3 * 512 + 512 + 3 * 1536) + 2 * 2 * positions**2 * hidden
    heads = 3 * 2 * hidden * (positions * 6 + 2)
    assert flops_per_example(trm(), 6, 900) == passes * layer + heads


def test_the_stages_of_a_curriculum_count_by_their_share():
    stages = [{"until": 0.3, "H_cycles": 1, "L_cycles": 1}]
    grown = trm(H_cycles=2, L_cycles=1, depth_curriculum=stages)
    first, last = (flops_per_example(trm(H_cycles=H, L_cycles=1), 11, 81) for H in (1, 2))
    assert training_flops_per_example(grown, 11, 81) == 0.3 * first + 0.7 * last
    assert flops_per_example(grown, 11, 81) == last
    assert flops_of_run(grown, 11, 81, batch=2, steps=10) == (20 * (0.3 * first + 0.7 * last), 0)
    assert flops_of_run(trm(H_cycles=1, L_cycles=1), 11, 81, batch=2, steps=10) == (20 * first, 2 * first)
