"""What jemalloc is told, with a stand-in; and that a process without it reads all the same."""

import ctypes
from contextlib import suppress

from freeprm.models.allocator import kept_pages

UNUSED = 14  # EFAULT, of an arena that was never used


class Jemalloc:
    """Two arenas, of which one is in use."""

    def __init__(self) -> None:
        self.decay = {
            "arenas.dirty_decay_ms": 10_000, "arenas.muzzy_decay_ms": 0, "arena.1.dirty_decay_ms": 5000,
            "arena.1.muzzy_decay_ms": 0,
        }  # fmt: skip

    def mallctl(self, name: bytes, old, size, new, new_size) -> int:
        if name == b"arenas.narenas":
            old._obj.value = 2
            return 0
        setting = name.decode()
        if setting not in self.decay:
            return UNUSED
        if old is not None:
            assert size._obj.value == ctypes.sizeof(old._obj)
            old._obj.value = self.decay[setting]
        if new is not None:
            assert new_size.value == ctypes.sizeof(new._obj)
            self.decay[setting] = new._obj.value
        return 0


def test_pages_are_kept_inside_and_given_back_as_ever_behind():
    library = Jemalloc()
    before = dict(library.decay)
    with suppress(KeyError), kept_pages(library):
        assert set(library.decay.values()) == {-1}
        raise KeyError
    assert library.decay == before


def test_another_allocator_is_left_alone():
    with kept_pages(object()):
        pass
    with kept_pages():
        pass
