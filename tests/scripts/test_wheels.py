"""What a bare machine lacks, compared with what one was seen to lack."""

from pathlib import Path

import pytest

import scripts.wheels as wheels
from scripts.wheels import Package, lacking, main, table

# of the packages on a borrowed H100 machine, those that this program needs, with their own requirements left out
H100_MACHINE = [
    "torch", "numpy", "einops", "matplotlib", "pillow", "tokenizers", "huggingface-hub", "tqdm", "pyyaml", "packaging",
    "typing-extensions", "pytest", "pytest-xdist", "pluggy", "iniconfig", "pygments", "triton", "filelock", "fsspec",
    "jinja2", "sympy", "networkx", "setuptools",
]  # fmt: skip
# what had to be carried there, and safetensors, which the program has needed since then
SEEN_TO_LACK = [
    "annotated-types", "antlr4-python3-runtime", "coolname", "docstring-parser", "hydra-core", "omegaconf", "pydantic",
    "pydantic-core", "safetensors", "typeguard", "typing-inspection", "tyro",
]  # fmt: skip


def test_a_machine_lacks_what_it_was_seen_to_lack():
    found = {package.name: package for package in lacking(H100_MACHINE, "3.12")}
    assert list(found) == SEEN_TO_LACK
    assert [name for name, package in found.items() if not package.pure] == ["pydantic-core", "safetensors"]
    assert found["antlr4-python3-runtime"].version == "4.9.3"
    assert 5e6 < sum(package.size for package in found.values()) < 40e6


def test_names_are_compared_as_registries_do():
    written = [name.replace("-", "_").title() for name in (*H100_MACHINE, *SEEN_TO_LACK)]
    assert not lacking(written, "3.12")


def test_a_machine_with_torch_alone_lacks_no_part_of_torch():
    found = {package.name for package in lacking(None, "3.12")}
    assert {*SEEN_TO_LACK, "matplotlib", "tokenizers", "pytest"} <= found
    assert not {"torch", "numpy", "sympy", "filelock", "triton", "jinja2", "wandb"} & found


def test_versions_are_those_for_the_python_of_the_machine():
    text = (
        "numpy==2.4 ; python_full_version < '3.12' \\\n    --hash=sha256:1\n"
        "numpy==2.5 ; python_full_version >= '3.12' \\\n    --hash=sha256:2\n    # via x\n"
        "colorama==1 ; sys_platform == 'win32' \\\n    --hash=sha256:3\n"
    )
    for python, version in (("3.11", "2.4"), ("3.12", "2.5"), ("3.13", "2.5")):
        assert wheels._pins(text, wheels._environment(python)) == {"numpy": version}


def test_what_is_not_installed_here_is_listed():
    package = wheels._package("no-such-package", "1.0")
    assert package == Package("no-such-package", "1.0", None, 0)
    assert "no-such-package==1.0" in table([package])
    assert "not installed here" in table([package])


def test_a_package_without_a_wheel_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pip = tmp_path / "pip"
    pip.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        'for last; do :; done\n'
        'case "$1 $last" in\n'
        '  "download sdist==1") echo "no matching distribution" >&2; exit 1;;\n'
        '  *broken*) echo "$1: no such package" >&2; exit 1;;\n'
        "esac\n"
        f'echo > {tmp_path}/wheels/"$1-$last-py3-none-any.whl"\n'
    )  # fmt: skip
    pip.chmod(0o755)
    monkeypatch.setattr(wheels, "_pip", lambda: [str(pip)])
    packages = [Package("wheel", "2", True, 0), Package("sdist", "1", True, 0)]
    found = wheels.download(packages, "3.12", tmp_path / "wheels")
    assert [file.name.partition("-py3")[0] for file in found] == ["download-wheel==2", "wheel-sdist==1"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 3
    assert "--only-binary=:all: --python-version 3.12" in calls[0]
    with pytest.raises(wheels.UserError, match="neither download nor build it:\ndownload: no such package\nwheel:"):
        wheels.download([Package("broken", "1", True, 0)], "3.12", tmp_path / "wheels")


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    there = tmp_path / "there.txt"
    there.write_text("\n".join(f"{name}==1.0" for name in (*H100_MACHINE, *SEEN_TO_LACK) if name != "tyro"))
    monkeypatch.setattr("sys.argv", ["wheels", "--there", str(there)])
    main()
    printed = capsys.readouterr().out
    assert printed.startswith("tyro==")
    assert "1 packages, 1 of them pure Python" in printed
    for arguments, message in ((["--python", "3"], "such as 3.12"), (["--there", "nothing"], "there is no such file")):
        monkeypatch.setattr("sys.argv", ["wheels", *arguments])
        with pytest.raises(wheels.UserError, match=message):
            main()
