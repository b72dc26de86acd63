"""Published numbers of parameters, without the puzzle embedding and the buffers."""

import pytest
import torch

from models.act import ACTModel
from models.recursive_reasoning.hrm import HierarchicalReasoningModel
from models.recursive_reasoning.trm import TinyRecursiveModel

SUDOKU = {"vocab_size": 11, "seq_len": 81, "puzzle_emb_ndim": 512}


@pytest.mark.parametrize(
    ("model_class", "options", "published"),
    [
        (TinyRecursiveModel, {"mlp_t": True, "pos_encodings": "none", "puzzle_emb_len": 16}, 5_028_866),
        (TinyRecursiveModel, {"puzzle_emb_len": 16}, 6_828_034),
        (HierarchicalReasoningModel, {}, 27_275_266),
    ],
)
def test_published_count(model_class: type[ACTModel], options: dict, published: int):
    with torch.device("meta"):
        model = model_class(SUDOKU | options)
    assert sum(p.numel() for p in model.parameters()) == published
    assert "inner.puzzle_emb.weights" in dict(model.named_buffers())
