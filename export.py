"""Write a trained model as a file for other runtimes, or as a page that computes in the browser.

    uv run python export.py load_checkpoint=sudoku_6x6                        # ONNX, with the recursion inside
    uv run python export.py load_checkpoint=checkpoints/.../step_1000 format=torch
    uv run python export.py format=web                                        # a page with the models of weights/

What was written is compared with the model before the program ends. Settings: docs/configuration.md, or --help.
"""

from pathlib import Path

from exporting.writing import write
from utils.hydra import hydra_main
from utils.settings import ExportConfig


def export(config: ExportConfig) -> Path:
    """Write what the settings ask for: the file or folder.

    Raises:
        UserError: the model cannot be loaded or exported, the file cannot be written, or it computes something else.
    """
    return write(config)


if __name__ == "__main__":
    hydra_main("cfg_export", ExportConfig, export)
