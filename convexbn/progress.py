"""The progress bar of long runs."""

from typing import Any


def progress_bar(method: str, total: int | None) -> Any:
    """Return a progress bar of tqdm, or raise an ImportError that names the extra."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("verbose=True shows a progress bar with tqdm: pip install 'convexbn[progress]'.") from error
    return tqdm(desc=method, total=total, unit="it")
