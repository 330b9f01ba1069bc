"""A split by content: the same pictures land on the same side on every machine."""

from dataclasses import replace

from ..config import BadInput
from .dataset import Split


def split_off(whole: Split, name: str, fraction: float) -> tuple[Split, Split]:
    """Split off about `fraction` of the pictures, at least one, as a new split of that name.

    A picture's side follows from the digest of its file, so equal files stay on one side, and a
    picture added later moves no other. Raises BadInput where one side would be empty.
    """
    share = [int(picture.sha256[:8], 16) / 2**32 for picture in whole.pictures]
    steps = sorted(set(share))
    if len(steps) < 2:
        raise BadInput([f"data.{name}: train has too few pictures to split some off; give {name}"])
    limit = min(max(fraction, steps[0]), steps[-2])
    kept = tuple(p for p, s in zip(whole.pictures, share, strict=True) if s > limit)
    gone = tuple(p for p, s in zip(whole.pictures, share, strict=True) if s <= limit)
    return replace(whole, pictures=kept), replace(whole, name=name, pictures=gone)
