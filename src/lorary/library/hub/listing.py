"""What the Hub says of a file, compared with one on this disk. Knows no network."""

from pathlib import Path
from typing import Any

from huggingface_hub.utils.sha import git_hash

from lorary.hashing import hash_file


def is_whole(path: Path, told: Any) -> bool:
    """Tell whether a file is what the Hub says of it, by size and hash; True for one that isn't there."""
    return not path.is_file() or is_same(path, told)


def is_same(path: Path, told: Any) -> bool:
    """Tell whether a file that is there is what the Hub says of it, as far as it says anything."""
    if told.size is not None and path.stat().st_size != told.size:
        return False
    if told.lfs is not None:
        return bool(hash_file(path) == told.lfs.sha256)
    return not told.blob_id or bool(git_hash(path.read_bytes()) == told.blob_id)
