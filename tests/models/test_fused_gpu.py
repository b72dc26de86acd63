"""The Triton kernels against fp64, and against the plain layers.

On a Hopper GPU they run in bf16. Elsewhere Triton's interpreter runs them, in fp32, because it cannot multiply bf16;
since it must be chosen before Triton is imported, `test_interpreted` runs this file in another process.
"""

import importlib.util
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from models.fused.convert import convert
from models.layers import Block, SwiGLU, cast_once
from models.view import View
from utils.optimizers import _update_at_once, for_each

CUDA = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not CUDA
DEVICE, DTYPE = ("cuda", torch.bfloat16) if CUDA else ("cpu", torch.float32)
TRITON = importlib.util.find_spec("triton") is not None
EPS = 1e-5

needs_kernels = pytest.mark.skipif(not TRITON or not (CUDA or INTERPRETED), reason="on Hopper GPUs, or interpreted")
needs_cuda = pytest.mark.skipif(not TRITON or not CUDA, reason="on Hopper GPUs")


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.thorough
@pytest.mark.skipif(not TRITON or CUDA or INTERPRETED, reason="without CUDA, in the first process")
def test_interpreted():
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 9):
        pytest.skip("the interpreter of this Triton cannot run loops whose bounds are arguments")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def fused(plain: SwiGLU) -> SwiGLU:
    from models.fused.gpu.layers import GPUSwiGLU

    return GPUSwiGLU(plain)


def swiglu(width: int, over_positions: bool) -> SwiGLU:
    """Weights that bf16 can represent: what is left to differ is the arithmetic."""
    module = SwiGLU(width, 4, inner=256, over_positions=over_positions).to(DEVICE)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((1.5 * parameter).bfloat16())
    return module


def results(sublayer: Any, module: SwiGLU, x: Tensor, dy: Tensor) -> list[Tensor]:
    """y, and the gradients of x and of both weights."""
    x = x.clone().requires_grad_()
    y = sublayer(x, EPS)
    return [y.detach(), *torch.autograd.grad(y, (x, module.gate_up_proj.weight, module.down_proj.weight), dy)]


def exact_results(module: SwiGLU, x: Tensor, dy: Tensor) -> list[Tensor]:
    """The same in fp64."""
    module, axis = deepcopy(module).double(), 1 if module.over_positions else -1

    def sublayer(x: Tensor, eps: float) -> Tensor:
        total = x + module(x)
        return total / (total.square().mean(axis, keepdim=True) + eps).sqrt()

    return results(sublayer, module, x.double(), dy.double())


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@needs_kernels
@pytest.mark.parametrize(
    ("over_positions", "shape"),
    [(False, (70, 64)), (False, (3, 50, 128)), (True, (3, 13, 64)), (True, (2, 97, 128)), (True, (1, 128, 192))],
)
def test_outputs_and_gradients_are_as_exact_as_those_of_the_plain_layer(over_positions: bool, shape: tuple[int, ...]):
    plain = swiglu(shape[1] if over_positions else shape[-1], over_positions)
    x, dy = (torch.randn(shape, device=DEVICE).bfloat16().to(DTYPE) for _ in range(2))
    module = fused(plain)
    exact, found = exact_results(plain, x, dy), results(module.sublayer, plain, x, dy)
    others = results(plain.sublayer, plain, x, dy)
    for name, a, b, c in zip(("y", "dx", "d gate_up", "d down"), found, others, exact, strict=True):
        assert a.dtype == b.dtype, name
        limit = 1.3 * error(b, c) if CUDA else 1e-6
        assert error(a, c) < limit, name
    with torch.no_grad():
        assert torch.equal(module.sublayer(x, EPS), found[0])


@needs_kernels
def test_interleaving_is_undone():
    from models.fused.gpu.pairs import interleave, separate

    gate_up = torch.arange(24).view(12, 2)
    assert interleave(gate_up, 2)[:, 0].tolist() == [0, 2, 12, 14, 4, 6, 16, 18, 8, 10, 20, 22]
    assert torch.equal(separate(interleave(gate_up, 3), 3), gate_up)


@needs_kernels
def test_all_parameters_are_updated_as_one_by_one():
    from models.fused.gpu.adam_atan2 import adam_atan2

    counts = (5000, 3, 2048)
    scalars: Any = (0.9, 1e-2, 1.7, 0.9, 0.95, 0.99)
    p, gradients, m, v, averages = ([torch.randn(n, device=DEVICE) for n in counts] for _ in range(5))
    gradients = [g * 10.0 ** torch.randint(-6, 6, g.shape, device=DEVICE) for g in gradients]
    values: Any = [p, gradients, m, [value.abs() for value in v], [averages[0], None, averages[2]]]
    expected = deepcopy(values)
    adam_atan2(*values, *scalars)
    for_each(_update_at_once)(*expected, *scalars)
    for index, (found, other) in enumerate(zip(values, expected, strict=True)):
        for a, b in zip(found, other, strict=True):
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
                assert a._version == (0 if index == 1 else 1)  # autograd knows what was overwritten
    with pytest.raises(ValueError, match="contiguous fp32"):
        adam_atan2([p[0][::2]], [p[0][::2]], [p[0]], [p[0]], [None], *scalars)


@needs_kernels
def test_a_compiled_block_is_one_graph_with_gradients_and_one_without():
    block = Block(64, 1, 4.0, 13, mlp_t=True, eps=EPS).to(DEVICE)
    assert block.mlp_t is not None
    block.mlp_t, block.mlp = fused(block.mlp_t), fused(block.mlp)
    start = torch.randn(2, 13, 64, device=DEVICE, dtype=DTYPE)

    def compute() -> list[Tensor]:
        with cast_once(block, DTYPE):
            x = start.clone().requires_grad_()
            y = block(block(x, View()), View())
            gradients = torch.autograd.grad(y.float().square().mean(), (x, *block.parameters()))
            with torch.no_grad():
                return [y.detach(), block(start, View()), *gradients]

    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("inductor" if CUDA else "aot_eager")(graph, inputs)

    expected = compute()
    block.compile(dynamic=False, fullgraph=True, backend=backend)
    for _ in range(2):
        for a, b in zip(compute(), expected, strict=True):
            assert error(a, b.double()) < (0.02 if CUDA else 1e-5)
    assert len(graphs) == 2


@needs_kernels
def test_what_does_not_fit_has_a_reason():
    from models.fused.gpu.layers import GPUSwiGLU

    assert GPUSwiGLU.unfit(SwiGLU(64, 4), 64) is None
    assert GPUSwiGLU.unfit(SwiGLU(128, 4, over_positions=True), 64) is None
    wide = "hidden_size 96 is no multiple of 64, or the inner width 256 of 256"
    assert GPUSwiGLU.unfit(SwiGLU(96, 4), 96) == wide
    assert GPUSwiGLU.unfit(SwiGLU(129, 4, over_positions=True), 64) == "129 positions are more than 128"


def test_without_triton_there_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.fused.convert.has_triton", lambda: False)
    model: Any = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda"))]))
    assert convert(model) == (False, "there is no Triton")


@needs_kernels
def test_on_other_gpus_there_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    from models.fused.gpu.convert import cannot_compute

    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 6))
    found = cannot_compute.__wrapped__(torch.device("cuda", 1))
    assert found == "they are for compute capability 9.0 (Hopper), and this GPU has 8.6"


@needs_cuda
@pytest.mark.parametrize("mlp_t", [True, False])
def test_a_model_on_cuda_trains_as_without_kernels(mlp_t: bool):
    # imported here because the other process does without them
    from models.acceleration import accelerate
    from models.losses import ACTLossHead
    from models.training import TrainState
    from tests.models.small import small_batch, small_model
    from utils.distributed import Ranks
    from utils.machine import choose_machine
    from utils.settings import OptimizationConfig

    options: dict[str, Any] = {"hidden_size": 64, "num_heads": 1, "mlp_t": mlp_t, "forward_dtype": "bfloat16"}
    config = OptimizationConfig(
        global_batch_size=4, seed=0, optimizer="adam_atan2", lr=1e-3, lr_min_ratio=1, beta1=0.9, beta2=0.95,
        weight_decay=0.1, ema=True, ema_rate=0.9,
    )  # fmt: skip
    plain, model = (small_model("trm", **options).to(DEVICE) for _ in range(2))
    model.load_state_dict(plain.state_dict())
    states = [TrainState(ACTLossHead(each), config, Ranks(), 10) for each in (plain, model)]
    done = accelerate(model, choose_machine("cuda", "bfloat16", True))
    assert "fused operators: yes (SwiGLU in bfloat16 on CUDA)" in str(done)
    states[1].use_fast_update(done)
    batch = {name: value.to(DEVICE) for name, value in small_batch(4).items()}
    for _ in range(3):
        expected, found = (state.train_step(batch) for state in states)
        assert found["train/lm_loss"] == pytest.approx(expected["train/lm_loss"], rel=0.02)
    assert convert(model)[0]  # a second call changes nothing
    single = small_model("trm", **(options | {"forward_dtype": "float32"})).to(DEVICE)
    assert convert(single) == (False, "on CUDA they are for bfloat16")
