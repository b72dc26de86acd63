"""Compiled code is kept apart by the instructions of the CPU."""

import pytest
import torch

from utils.compiling import separate_compiled_by_cpu


def test_graphs_are_found_again_only_by_like_cpus(monkeypatch: pytest.MonkeyPatch):
    tags = set()
    for avx512 in (False, True):
        for given in ("", "mine"):
            monkeypatch.setattr(torch.compiler.config, "cache_key_tag", given)
            monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda there=avx512: there)
            separate_compiled_by_cpu()
            tag = torch.compiler.config.cache_key_tag
            separate_compiled_by_cpu()
            assert torch.compiler.config.cache_key_tag == tag
            assert tag.startswith(f"{given} cpu:".lstrip())
            tags.add(tag)
    assert len(tags) == 4
