"""Webdataset tars, from a file or from what a command prints.

`KEY.jpg|png|webp` with `KEY.txt` and/or `KEY.json` is one sample, the img2dataset layout; `KEY.cls` its class, as in
the usual shards of ImageNet. Members are read as a stream and never written to disk, so their names are only names.
An archive that stops without its end mark is damaged: a copy cut between two members would otherwise be read as whole.
"""

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from data.raw_sample import MAX_BYTES, File, FileSlice, RawPart
from data.shard_names import PIPE

Damaged = Callable[[object], None]
"""Told of what could not be read; reading goes on with what follows, if anything does."""
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)


def read_tar(shard: str, is_damaged: Damaged, needs_caption: bool, may_skip: Callable[[], bool]) -> Iterator[RawPart]:
    """The samples of a tar. While `may_skip()`, those of an uncompressed file are slices of it and not read."""
    from webdataset.tariterators import group_by_keys

    def note(error: Exception) -> bool:
        is_damaged(error)
        return True

    for sample in group_by_keys(_members(shard, is_damaged, may_skip), handler=note):
        files = {ending: data for ending, data in sample.items() if not ending.startswith("__")}
        yield RawPart(sample["__key__"], shard, files, needs_caption)


def _members(shard: str, is_damaged: Damaged, may_skip: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    try:
        with _opened(shard) as (archive, seekable):
            for member in archive:
                if member.isreg() and not member.name.startswith("__"):
                    content: File = FileSlice(shard, member.offset_data, member.size)
                    if member.size <= MAX_BYTES and not (seekable and may_skip()):
                        file = archive.extractfile(member)
                        assert file is not None  # of a regular member
                        content = file.read()
                    yield {"fname": member.name, "data": content, "__url__": shard}
                archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member it met
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        is_damaged(f"{type(error).__name__}: {error}")


class _Header(tarfile.TarInfo):
    """A header that must be there, for an archive ends with a block of zeros, not with its last byte.

    And that is short, for tarfile reads the long names of a header whole.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size > MAX_BYTES and header.type in _LONG_NAMES:
            raise tarfile.ReadError(f"a header of {header.size} bytes, more than the limit of {MAX_BYTES}")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("the archive is cut short") from error


@contextmanager
def _opened(shard: str) -> Iterator[tuple[tarfile.TarFile, bool]]:
    """The archive, and whether it is a plain tar in a file, in which members can be skipped."""
    if shard.startswith(PIPE):
        with (
            _output_of(shard.removeprefix(PIPE)) as stream,
            tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive,
        ):
            yield archive, False
            while stream.read(1 << 20):  # a command whose output is not read to its end would fail
                pass
        return
    with open(shard, "rb") as file:
        file.seek(257)
        is_plain = file.read(5) == b"ustar"
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:" if is_plain else "r|*", tarinfo=_Header) as archive:
            yield archive, is_plain


@contextmanager
def _output_of(command: str) -> Iterator[IO[bytes]]:
    """What a command prints; OSError if it fails, also where that is why the archive ends too early."""
    process = subprocess.Popen(command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    reason = ""
    try:
        yield process.stdout
    except tarfile.TarError as error:
        reason = f"{error}, and "
        while process.stdout.read(1 << 20):
            pass
        if not process.wait():
            raise
    finally:
        process.stdout.close()  # ends a command that is left before its end
        code = process.wait()
    if code:
        raise OSError(f"{reason}the command ended with exit code {code}")
