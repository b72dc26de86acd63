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


def fallback_note() -> str | None:
    """What to tell the user if some calls of compiled code ran uncompiled since `forget_compiled`; else None."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return None
    counters = dynamo.utils.counters
    hits = sum(count for reason, count in counters["unimplemented"].items() if "recompile limit" in reason)
    if not hits:
        return None
    return (
        f"note: a part of the model ran uncompiled, and so more slowly: the compiler made {counters['frames']['ok']} "
        f"graphs for different shapes and then met its limit (torch._dynamo.config.recompile_limit) {hits} times"
    )
