"""Where the images that a record names are found: in a code store by key, in a folder by file name, or in both."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from data.codes import CodeStore
from data.documents import ImageRef
from data.picture_files import PictureFiles


@dataclass(frozen=True)
class ImageLibrary:
    store: CodeStore | None = None  # looked into first: reading codes is a thousand times cheaper than making them
    files: PictureFiles | None = None

    def find(self, name: str, where: str) -> ImageRef:
        """The image of that name; ValueError, with `where` in it, without one."""
        if self.store is not None:
            # Stores made from webdataset shards have keys without the suffix of the picture's file.
            path = PurePosixPath(name)
            for candidate in (name, str(path.with_suffix("")) if path.name else name):
                if candidate in self.store:
                    return ImageRef(self.store, self.store.index_of(candidate))
        if self.files is not None and name in self.files:
            return ImageRef(self.files, name)
        places = " nor ".join(repr(str(place.path)) for place in (self.store, self.files) if place is not None)
        raise ValueError(f"{where} names the image {name!r}, which {places} does not hold")
