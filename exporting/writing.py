"""From the settings of export.py to a checked file."""

from collections.abc import Callable
from pathlib import Path

from evaluators.loading import load
from evaluators.reasoner import Reasoner
from exporting.checks import compare, onnx_answers, original_answers, program_answers, sample_puzzles
from exporting.models import load_exact, name_of, steps_of
from exporting.packages import check_packages
from exporting.program import answer_program, save_program
from exporting.results import accept, check_int8
from utils.atomic_file import replacing
from utils.errors import UserError
from utils.files import writing_to
from utils.settings import ExportConfig

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": "", "web": ""}
_OTHER_OUTPUT = "Choose another output."


def write(config: ExportConfig) -> Path:
    """Write what the settings ask for, and compare it with the model.

    Raises:
        UserError: the model cannot be loaded or exported, the file cannot be written, or it computes something else.
    """
    if config.int8 and config.format not in ("onnx", "web"):
        raise UserError(f"int8=true: only for format=onnx and format=web, not for format={config.format}.")
    if config.format in ("onnx", "web"):
        check_packages()
    if config.format == "web":
        from exporting.web import write_page

        return write_page(config)
    if config.load_checkpoint is None:
        raise UserError(
            "load_checkpoint is missing: the name of a model in weights/, a run folder, a file step_<N>, or a folder "
            "that was saved."
        )
    reasoner = load_exact(config, config.load_checkpoint)
    output = choose_output(config, reasoner)
    print(f"model: {reasoner.origin.path}\n{reasoner}")
    with writing_to(output.parent, _OTHER_OUTPUT):
        output.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[config.format](config, reasoner, output)
    print(f"{'folder' if output.is_dir() else 'file'}: {output} ({size_of(output):,} bytes)")
    return output


def choose_output(config: ExportConfig, reasoner: Reasoner) -> Path:
    """The file or folder to write: `output`, or one named after the model.

    Raises:
        UserError: a folder is in the place of the file, or a file in the place of the folder.
    """
    suffix = _SUFFIXES[config.format]
    output = Path(config.output) if config.output is not None else Path("exports") / (name_of(reasoner) + suffix)
    if suffix and output.is_dir():
        raise UserError(f"output={output} is a folder. Give the name of a file, such as {output / ('model' + suffix)}.")
    if not suffix and output.exists() and not output.is_dir():
        raise UserError(f"output={output} is a file. format={config.format} writes a folder: give another name.")
    return output


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


# -- the formats -------------------------------------------------------------------------------------------------------


def _write_onnx(config: ExportConfig, reasoner: Reasoner, output: Path) -> None:
    import onnx

    from exporting.int8 import quantised
    from exporting.onnx_models import answer_model

    model = answer_model(reasoner)
    inputs, source = sample_puzzles(reasoner, config.check_puzzles)
    print(f"compared on {source} puzzles")
    with replacing(output) as temporary:
        onnx.save_model(model, temporary)
        result = compare(reasoner, onnx_answers(reasoner, temporary), inputs, steps_of(config, reasoner))
        accept(result, "ONNX")
        if config.int8:
            onnx.save_model(quantised(model), temporary)
            result = compare(reasoner, onnx_answers(reasoner, temporary), inputs, steps_of(config, reasoner))
            check_int8(result, config.int8_points)


def _write_torch(config: ExportConfig, reasoner: Reasoner, output: Path) -> None:
    program = answer_program(reasoner)
    inputs, source = sample_puzzles(reasoner, config.check_puzzles)
    print(f"compared on {source} puzzles")
    with replacing(output) as temporary:
        save_program(program, temporary)
        accept(compare(reasoner, program_answers(reasoner, temporary), inputs, steps_of(config, reasoner)), "torch")


def _write_safetensors(config: ExportConfig, reasoner: Reasoner, output: Path) -> None:
    reasoner.save(output)
    again = load(output, "cpu", dtype="float32")
    inputs, source = sample_puzzles(reasoner, config.check_puzzles)
    print(f"compared on {source} puzzles")
    accept(compare(reasoner, original_answers(again), inputs, steps_of(config, reasoner)), "safetensors")


_WRITERS: dict[str, Callable[[ExportConfig, Reasoner, Path], None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "safetensors": _write_safetensors,
}
