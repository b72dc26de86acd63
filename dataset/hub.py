"""Files from the Hugging Face hub, with an error that says what to do without it.

The client is imported where it is used: a slow import, of no use to those who have their files at hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from utils.errors import UserError


@contextmanager
def reaching_hub(what: str, otherwise: str) -> Iterator[None]:
    """Turn what goes wrong with the hub inside the block into a `UserError`.

    Args:
        what: what is wanted, the beginning of the message.
        otherwise: what to do instead, the end of the message, without its full stop.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # Lost connections are errors of the HTTP client, which differs from version to version of the hub's.
    client_errors = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    try:
        yield
    except (OSError, ValueError, *client_errors) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{what} cannot be downloaded ({reason}). Try again with a network, {otherwise}.") from error


def hub_file(
    repo: str, file: str, otherwise: str, repo_type: Literal["model", "dataset"], folder: Path | None = None
) -> Path:
    """The local copy of a file of `repo`, downloaded where needed: into `folder`, or into the hub's own cache.

    Raises:
        UserError: it cannot be downloaded; the message ends in `otherwise`.
    """
    from huggingface_hub import hf_hub_download

    where: dict[str, Any] = {} if folder is None else {"local_dir": folder}
    kind = "data set" if repo_type == "dataset" else "model"
    with reaching_hub(f"{file} of the Hugging Face {kind} {repo}", otherwise):
        return Path(hf_hub_download(repo, file, repo_type=repo_type, **where))
