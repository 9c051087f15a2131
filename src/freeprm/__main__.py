"""The process of the command line: `freeprm`, or `python -m freeprm` for launchers that start modules.

It is started again with another memory allocator, where there is one: training reads rows of ever new lengths, and
glibc's malloc, which looks for the best of thousands of holes between tensors, took up to 43 % of the time of a real
model's training on a CPU.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SETTING = "FREEPRM_ALLOCATOR"
"""Environment variable; `system` keeps the system's allocator."""
_SYSTEM_FOLDERS = tuple(
    Path(folder) for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
)
_JEMALLOC = "libjemalloc.so.2"
_TBB = ("libtbbmalloc.so.2", "libtbbmalloc_proxy.so.2")
"""In the order of loading; of the package `tbb`."""


def main() -> None:
    """Run the command line, with the better allocator."""
    environment = with_allocator(os.environ, prefix=Path(sys.prefix))
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    from freeprm.cli.main import run  # not before: the process may be replaced

    run()


def with_allocator(
    environment: Mapping[str, str], *, prefix: Path, folders: tuple[Path, ...] = _SYSTEM_FOLDERS
) -> dict[str, str] | None:
    """The environment in which a process loads jemalloc, or else TBB's allocator; None to leave it as it is.

    Args:
        environment: of this process. One with `LD_PRELOAD` has an allocator of its own, or one of ours already.
        prefix: of the Python environment; `lib` in it may have TBB.
        folders: may have jemalloc.
    """
    if not sys.platform.startswith("linux") or "LD_PRELOAD" in environment or environment.get(SETTING) == "system":
        return None
    for folder in folders:
        if (folder / _JEMALLOC).is_file():
            return {**environment, "LD_PRELOAD": str(folder / _JEMALLOC)}
    tbb = [prefix / "lib" / name for name in _TBB]
    if all(path.is_file() for path in tbb):
        return {**environment, "LD_PRELOAD": ":".join(map(str, tbb))}
    return None


if __name__ == "__main__":
    main()
