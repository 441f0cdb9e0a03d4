"""What the server and the demo allow; the defaults suit one machine and its owner."""

import math
from dataclasses import dataclass

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of a request, of a batch and of what may wait."""

    body_bytes: int = 16 * MEGABYTE
    pixels: int = 16 * MEGABYTE  # of one picture, before it is decoded
    pictures: int = 8  # shown in one conversation
    prompt_characters: int = 16_384
    messages: int = 64
    drawings: int = 8  # of one request, `n`
    new_tokens: int = 512  # of an answer; the context may end it sooner
    batch_rows: int = 16  # answers or drawings that are made together
    batch_wait: float = 0.01  # seconds for which a batch waits for company
    queue: int = 64  # requests that wait; the next one is told to come back
    connections: int = 128
    seconds: float = 300.0  # from a request's arrival to its last byte
    body_seconds: float = 30.0  # for a request to arrive

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (0 < value < math.inf or name == "batch_wait"):
                raise ValueError(f"limit {name}={value} must be above 0")
        if self.drawings > self.batch_rows:
            raise ValueError(
                f"{self.drawings} drawings of one request exceed a batch of {self.batch_rows}: allow larger batches"
            )
