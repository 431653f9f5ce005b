"""A key that rotates while a session is open: the session asks for it before every request."""

import asyncio
import sys
from pathlib import Path

from seedance_avatar import AssetSource, AvatarSession


class KeyFile:
    """The key in a file that a secret manager replaces; read again only when the file has changed."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._version: tuple[int, int] | None = None
        self._key = ""

    def __call__(self) -> str:
        found = self._path.stat()
        version = (found.st_ino, found.st_mtime_ns)
        if version != self._version:
            self._key = self._path.read_text().strip()
            self._version = version
        return self._key


async def main(key_file: str, group: str, urls: list[str]) -> None:
    async with AvatarSession(KeyFile(key_file)) as session:
        async with session.ingest(map(AssetSource.image, urls), group=group) as stream:
            async for asset in stream:
                print(asset.uri)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
