"""How the Hub is asked: patiently where that may help, never for long without an answer, in one error if it fails."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from lorary.disk.writing import is_disk_error
from lorary.errors import LibraryError, LoraryError, quote

ANSWER_TIMEOUT_S = 5.0  # for the first word from the Hub; downloads may take longer
PAUSES_S = (0.5, 2.0)
"""Pauses before a Hub that is busy or failing is asked again."""
_CHANGED = 412  # the branch isn't where it was when the Hub was asked
T = TypeVar("T")


@contextlib.contextmanager
def hub_errors(uri: str) -> Iterator[None]:
    """Raise E-HUB for whatever keeps the Hub from doing what the block asks of it; what the disk refuses passes."""
    try:
        yield
    except LoraryError:
        raise
    except HfHubHTTPError as error:
        raise _refused(uri, error) from error
    except Exception as error:
        if is_disk_error(error):
            raise
        if isinstance(error.__cause__, HfHubHTTPError):  # of which the Hub's library says that nothing is in its cache
            raise _refused(uri, error.__cause__) from error
        told = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of an upload
        raise _unreachable(uri, type(told).__name__) from error


def ask_facts(api: HfApi, repo: str, revision: str | None = None) -> Any:
    """Ask what a model repository holds, with sizes and hashes. Raises what the Hub's library raises, TimeoutError."""
    return patiently(
        lambda: within_time(lambda: api.repo_info(repo, revision=revision, files_metadata=True, timeout=5.0)), is_busy
    )


def patiently(ask: Callable[[], T], may_pass: Callable[[Exception], bool]) -> T:
    """Ask, and retry after a pause where that may help; what has arrived by then isn't sent twice."""
    for pause_s in PAUSES_S:
        try:
            return ask()
        except Exception as error:
            if not may_pass(error):
                raise
            time.sleep(pause_s)
    return ask()


def is_busy(error: Exception) -> bool:
    """Tell whether the Hub answered that it is busy or out of order."""
    status = getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
    return isinstance(status, int) and (status == 429 or status >= 500)


def broke_off(error: Exception) -> bool:
    """Tell a Hub that answered, and then was busy or hung up, from a disk that refuses and a Hub that isn't there."""
    cause = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
    return is_busy(cause) or not isinstance(cause, (HfHubHTTPError, OSError))


def within_time(ask: Callable[[], T]) -> T:
    """Ask, and wait for the first word at most so long. Raises TimeoutError."""
    # A thread, because no timeout of the HTTP client bounds a name server that doesn't answer.
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer in {ANSWER_TIMEOUT_S:g} s")
    return answers[0]


def _refused(uri: str, error: HfHubHTTPError) -> LibraryError:
    status = getattr(error.response, "status_code", None)
    told = f" It says: {quote(error.server_message, 300)}." if getattr(error, "server_message", None) else ""
    message = f"{uri}: the Hub answered {status or 'no status'} ({type(error).__name__}).{told}"
    hint = "Check the name, the revision, and HF_TOKEN for a private one."
    if status == _CHANGED:
        hint = "Somebody else changed it meanwhile: look at that, and run it again."
    return LibraryError("E-HUB", message, "It is busy or failing: try again later." if is_busy(error) else hint)


def _unreachable(uri: str, why: str) -> LibraryError:
    hint = (
        "These work offline: the path of a local directory, or HF_HUB_OFFLINE=1 "
        "when the repository is in the Hub's cache already."
    )
    return LibraryError("E-HUB", f"{uri}: the Hub can't be reached ({why}).", hint)
