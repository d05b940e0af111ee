"""Disks that are too small, for tests of what is written to them."""

from __future__ import annotations

import contextlib
import resource


@contextlib.contextmanager
def files_of_at_most(count):
    """No file of this process grows beyond so many bytes, as on a full disk; print nothing meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
