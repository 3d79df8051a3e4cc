"""Not the store: one opened cache directory, and what tells it from another one of the same name."""

import os

from llmpod.cache.entry import Signer

Life = tuple[int, int, bytes]


class Root:
    """An open handle of the directory. Closed with its last user: a reader in a thread may outlast the store."""

    def __init__(self, fd: int, mac_key: bytes, *, owner: bool) -> None:
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.signer = Signer(mac_key)
        self.life: Life = (
            *self.identity,
            mac_key,
        )  # a directory made anew may have the old inode, not the old key
        self.owner = owner
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)
