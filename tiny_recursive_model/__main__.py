"""The commands: python -m tiny_recursive_model demo | predict | train."""

import sys

from utils.errors import exit_on_user_error

_USAGE = """usage: python -m tiny_recursive_model COMMAND ...

  demo       show a trained model at work, in the terminal
  predict    answer puzzles from arguments, files or standard input
  train      train a small model

Each command has --help."""


def main(arguments: list[str]) -> int:
    """Run a command: its exit status. Bad input ends with status 2 (`utils.errors.exit_on_user_error`)."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(_USAGE)
        return 0
    # imported here, because a command should not wait for the imports of the others
    if command == "demo":
        from tiny_recursive_model.demo import main as run
    elif command == "predict":
        from tiny_recursive_model.predict import main as run
    elif command == "train":
        from tiny_recursive_model.training import main as run
    else:
        print(f"there is no command {command!r}.\n{_USAGE}", file=sys.stderr)
        return 2
    status = 0

    def run_command() -> None:
        nonlocal status
        status = run(rest)

    exit_on_user_error(run_command)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
