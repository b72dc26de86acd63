"""What torch.compile did in one job. The compiler is imported only by what compiles, because that takes seconds."""

import sys


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
