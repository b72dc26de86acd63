"""Files from the Hugging Face hub, with errors that say what to do if the hub cannot be reached.

The client is imported only where it is used, because the import is slow and local files do not need it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from utils.errors import UserError


@contextmanager
def reaching_hub(what: str, otherwise: str) -> Iterator[None]:
    """Turn errors of the hub inside the block into a `UserError`.

    Args:
        what: what is being downloaded; the start of the message.
        otherwise: what to do instead; the end of the message, without a full stop.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # A lost connection raises an error of the HTTP client, and which client that is depends on the version of the hub
    # package.
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
    """The local copy of a file of `repo`, downloaded if needed into `folder`, or by default into the cache of the hub.

    Raises:
        UserError: the file cannot be downloaded; the message ends with `otherwise`.
    """
    from huggingface_hub import hf_hub_download

    where: dict[str, Any] = {} if folder is None else {"local_dir": folder}
    kind = "data set" if repo_type == "dataset" else "model"
    with reaching_hub(f"{file} of the Hugging Face {kind} {repo}", otherwise):
        return Path(hf_hub_download(repo, file, repo_type=repo_type, **where))
