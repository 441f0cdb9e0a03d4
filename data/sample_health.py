"""How many raw samples were read, how many of them were bad, and when that is too many."""

import logging
from collections import Counter
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass
class Health:
    """How many samples were read, and how many of each shard were bad; more than a share of `limit` is an error."""

    limit: float
    seen: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def skip(self, shard: str, key: str, reason: object) -> None:
        self.bad[shard] += 1
        message = f"skipped {key} in {shard}: {reason}"
        logger.warning("%s", message.encode(errors="backslashreplace").decode())  # names may be no text

    def damaged(self, shard: str, reason: object) -> None:
        """Something of the shard itself: at least one sample is lost."""
        self.seen += 1
        self.skip(shard, "a member", reason)

    def check(self) -> None:
        """ValueError where too many are bad."""
        num_bad = self.bad.total()
        if num_bad and num_bad > self.limit * self.seen:
            worst, count = self.bad.most_common(1)[0]
            raise ValueError(
                f"{num_bad} of {self.seen} samples could not be read, more than the allowed share of {self.limit:g}; "
                f"the worst shard is {worst} with {count}: repair it or raise limit_bad_share"
            )
