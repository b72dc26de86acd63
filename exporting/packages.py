"""The packages that only an export needs."""

import importlib.util

from utils.errors import UserError

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_packages() -> None:
    """Check that the packages of the extra `export` are installed.

    Raises:
        UserError: one is not.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"format=onnx and format=web need {', '.join(missing)}. Install them with `uv sync --extra export`, or "
            f"`pip install {' '.join(_PACKAGES)}`; format=torch and format=safetensors do without."
        )
