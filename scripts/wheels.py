"""Which packages a machine without a network lacks to run the programs and the tests, and their wheels.

    uv run python -m scripts.wheels                                     # it has torch, what torch needs, and NumPy
    uv run python -m scripts.wheels --there there.txt --python 3.12     # what it has, from `pip list --format=freeze`
    uv run python -m scripts.wheels --there there.txt --download FOLDER # also fetch the wheels, with pip

Run it where the packages are installed: the requirements are read from their metadata, for Linux on x86-64 and the
given Python; the versions are those of requirements.txt. On the other machine, install the wheels with

    python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl; export PYTHONPATH=SITE
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.errors import UserError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("pytest",)
# imported only by a run that logs to W&B, and by a download from the hub
NOT_NEEDED = {"wandb", "hf-xet"}
BESIDE_TORCH = ("torch", "numpy")  # what a machine with torch has, besides what they require
# all that pip may take, because it takes each of them as it is written
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)),
    "manylinux2014_x86_64", "manylinux1_x86_64",
)  # fmt: skip


@dataclass(frozen=True)
class Package:
    """A package that is lacking.

    Attributes:
        name, version: as in requirements.txt; a package that is not in it has the version installed here.
        pure: whether it is only Python, so that one wheel fits every machine; None if it is not installed here.
        size: bytes of its files once it is installed.
    """

    name: str
    version: str
    pure: bool | None
    size: int


def lacking(there: Iterable[str] | None, python: str) -> list[Package]:
    """The packages that the programs and the tests need and that are not there, by name.

    Args:
        there: names of the packages of the machine; None: torch, NumPy and what they require.
        python: its version of Python, such as 3.12.
    """
    environment = _environment(python)
    known = _required(BESIDE_TORCH, set(), environment) if there is None else {canonicalize_name(x) for x in there}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = _pins((ROOT / "requirements.txt").read_text(), environment)
    needed = _required([*project, *TESTS], known | NOT_NEEDED, environment)
    return [_package(name, pinned.get(name)) for name in sorted(needed)]


def _environment(python: str) -> dict[str, str]:
    """The environment of markers of that Python on Linux."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }


def _required(requirements: Iterable[str], there: set[str], environment: dict[str, str]) -> set[str]:
    """Names of the packages that are required, with all that those require, except for what is there."""
    found: set[str] = set()
    waiting = [Requirement(item) for item in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in there or name in found:
            continue
        found.add(name)
        known = _installed(name)
        for item in map(Requirement, known.requires or [] if known is not None else []):
            extras = {"", *requirement.extras}
            if item.marker is None or any(item.marker.evaluate({**environment, "extra": extra}) for extra in extras):
                waiting.append(item)
    return found


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _pins(text: str, environment: dict[str, str]) -> dict[str, str]:
    """Name -> version of requirements.txt in that environment."""
    found = {}
    for line in re.findall(r"^[a-z0-9][^\\\n]*", text, flags=re.MULTILINE):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (version,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = version.version
    return found


def _package(name: str, pin: str | None) -> Package:
    known = _installed(name)
    if known is None:
        return Package(name, pin or "?", None, 0)
    files = [Path(str(known.locate_file(file))) for file in known.files or []]
    size = sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())
    return Package(name, pin or known.version, "Root-Is-Purelib: true" in (known.read_text("WHEEL") or ""), size)


def table(packages: Iterable[Package]) -> str:
    """The packages as text, with their size together."""
    packages = list(packages)
    kinds = {True: "pure Python", False: "compiled", None: "not installed here"}
    lines = [
        f"{f'{package.name}=={package.version}':<36}{kinds[package.pure]:<20}{package.size / 1e6:8.2f} MB"
        for package in packages
    ]
    pure = sum(package.pure is True for package in packages)
    total = sum(package.size for package in packages) / 1e6
    return "\n".join([*lines, f"{len(packages)} packages, {pure} of them pure Python; {total:.2f} MB once installed"])


def download(packages: Iterable[Package], python: str, folder: Path) -> list[Path]:
    """Fetch the wheels of the packages with pip, from the index that it is configured for.

    Of a package that has no wheel for that Python and Linux, the source is fetched and its wheel is built here.

    Raises:
        UserError: there is no pip, or it cannot get a package.
    """
    pip = _pip()
    folder.mkdir(parents=True, exist_ok=True)
    target = ["--python-version", python, "--implementation", "cp"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    for package in packages:
        pinned = f"{package.name}=={package.version}"
        fetch = [
            *pip,
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            *target,
            "--dest",
            str(folder),
            pinned,
        ]
        build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), pinned]
        errors = []
        for command in (fetch, build):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                break
            errors.append(done.stderr.strip())
        else:
            raise UserError(f"{pinned}: pip can neither download nor build it:\n" + "\n".join(errors))
    return sorted(folder.glob("*.whl"))


def _pip() -> list[str]:
    if _installed("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip")
    if found is None:
        raise UserError("--download needs pip, which is not installed: install it, or fetch the wheels by hand.")
    return [found]


def _names(file: Path) -> list[str]:
    """The names in a file: one package a line, as `name` or `name==version`."""
    if not file.exists():
        raise UserError(
            f"--there {file}: there is no such file. Write `pip list --format=freeze` of the machine to it."
        )
    return [re.split(r"[=<>@ \[]", line.strip())[0] for line in file.read_text().splitlines() if line.strip()]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m scripts.wheels"
    )
    parser.add_argument("--python", default="3.12", help="the machine's version of Python (3.12)")
    parser.add_argument("--there", type=Path, metavar="FILE", help="packages that the machine has, one a line")
    parser.add_argument("--download", type=Path, metavar="FOLDER", help="fetch the wheels into this folder")
    options = parser.parse_args()
    if not re.fullmatch(r"3\.\d+", options.python):
        raise UserError(f"--python {options.python}: give a version such as 3.12.")
    packages = lacking(None if options.there is None else _names(options.there), options.python)
    print(table(packages))
    if options.download is not None:
        wheels = download(packages, options.python, options.download)
        print(f"{options.download}: {len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 1e6:.2f} MB")


if __name__ == "__main__":
    exit_on_user_error(main)
