"""What XLA frees after a step is there for the next."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import ctypes, resource, sys, threading, time

start = threading.Thread.start

def slowly(self):
    start(self)
    time.sleep(0.1)  # for whatever a thread allocates first

threading.Thread.start, sys.argv = slowly, ["-m"]  # as of python -m experiments.NAME
import experiments

libc, size = ctypes.CDLL("libc.so.6"), 96 * 2**20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def steps():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        buffer = libc.malloc(size)
        libc.memset(buffer, 1, size)
        libc.free(buffer)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

one = threading.Thread(target=steps)
one.start()
one.join()
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="of glibc alone"
)
def test_a_buffer_that_a_thread_frees_is_not_mapped_anew():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    first, second, third = map(int, done.stdout.split())
    assert first > 10_000
    assert second < 100
    assert third < 100
