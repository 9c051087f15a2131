"""The process of the command line, and the allocator that it is started with."""

import subprocess
import sys
from pathlib import Path

import pytest

from freeprm.__main__ import with_allocator

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems load no allocator so")


def touched(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


@linux
def test_jemalloc_of_the_system_is_taken_before_tbb_of_the_python_environment(tmp_path: Path):
    touched(tmp_path / "lib", "libtbbmalloc.so.2", "libtbbmalloc_proxy.so.2")
    system = touched(tmp_path / "usr", "libjemalloc.so.2")
    with_tbb = with_allocator({"A": "b"}, prefix=tmp_path, folders=())
    both = f"{tmp_path}/lib/libtbbmalloc.so.2:{tmp_path}/lib/libtbbmalloc_proxy.so.2"
    assert with_tbb == {"A": "b", "LD_PRELOAD": both}
    found = with_allocator({"A": "b"}, prefix=tmp_path, folders=(system,))
    assert found == {"A": "b", "LD_PRELOAD": f"{system}/libjemalloc.so.2"}


@pytest.mark.parametrize("own", [{"LD_PRELOAD": ""}, {"FREEPRM_ALLOCATOR": "system"}])
def test_an_allocator_of_ones_own_or_the_systems_is_kept(tmp_path: Path, own: dict[str, str]):
    system = touched(tmp_path / "usr", "libjemalloc.so.2")
    assert with_allocator(own, prefix=tmp_path, folders=(system,)) is None


def test_without_a_better_allocator_nothing_changes(tmp_path: Path):
    touched(tmp_path / "lib", "libtbbmalloc.so.2")
    assert with_allocator({}, prefix=tmp_path, folders=(tmp_path,)) is None


@linux
def test_a_command_runs_with_it_and_says_what_it_says_without():
    code = """if True:
        import atexit, sys
        from freeprm.__main__ import main
        sys.argv = ["freeprm", "--version"]
        atexit.register(lambda: print("malloc.so" in open("/proc/self/maps").read()))
        main()
    """
    environment = with_allocator({}, prefix=Path(sys.prefix))
    if environment is None:
        pytest.skip("neither jemalloc nor tbb is installed")
    said = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split()
        for env in ({}, {"FREEPRM_ALLOCATOR": "system"})
    ]
    assert said[0] == [said[1][0], "True"]
    assert said[1][1] == "False"
