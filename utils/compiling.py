"""What torch.compile did in one job. The compiler is imported only by what compiles, because that takes seconds."""

import sys

import torch


def separate_compiled_by_cpu() -> None:
    """Let compiled code be found again only by CPUs with the same vector instructions.

    torch does not look at them when it finds a graph in its cache, but takes the instructions of this CPU to compile
    it; where machines share the folder of the cache (TORCHINDUCTOR_CACHE_DIR), the numbers are then wrong without a
    word.
    """
    found = sorted(name for name in dir(torch.cpu) if name.startswith("_is_") and name.endswith("_supported"))
    there = [name[4:-10] for name in found if getattr(torch.cpu, name)()]
    mark = "cpu:" + "+".join([torch.backends.cpu.get_cpu_capability(), *there])
    given = torch.compiler.config.cache_key_tag
    if mark not in given:
        torch.compiler.config.cache_key_tag = f"{given} {mark}".strip()


def forget_compiled() -> None:
    """Drop all compiled code and its counters.

    The compiler keeps a limited number of graphs for each function, over all models of a process; beyond it the
    function runs uncompiled. So each job of a sweep starts without those of the others.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
        dynamo.utils.counters.clear()


def compiling_note() -> str | None:
    """How many graphs were made since `forget_compiled`, and whether the compiler's limit was met; None: no graphs.

    A run makes its graphs in the first step and in the first evaluation. More of them, for every new shape of a batch,
    cost seconds each.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return None
    counters = dynamo.utils.counters
    graphs = counters["frames"]["ok"]
    if not graphs:
        return None
    hits = sum(count for reason, count in counters["unimplemented"].items() if "recompile limit" in reason)
    if not hits:
        return f"compiler: {graphs} graphs made"
    return (
        f"note: a part of the model ran uncompiled, and so more slowly: the compiler made {graphs} "
        f"graphs for different shapes and then met its limit (torch._dynamo.config.recompile_limit) {hits} times"
    )
