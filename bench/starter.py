"""Starts one command, waits for its end and says what it took, as JSON on a descriptor.

    python -I -S starter.py DESCRIPTOR LIMIT_S COMMAND...

A process of its own, and as small as Python can be: Linux counts the memory of whoever starts a
program towards that program's ru_maxrss, so a large starter would hide a small child.
"""

import os
import select
import signal
import sys
import time


def main() -> None:
    answer, limit = int(sys.argv[1]), float(sys.argv[2])
    os.set_inheritable(answer, False)
    command = sys.argv[3:]
    began = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, setpgroup=0)
    over = wait(pid, limit)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    code = "null" if over else os.waitstatus_to_exitcode(status)
    cpu = used.ru_utime + used.ru_stime
    text = f'{{"wall_s": {wall}, "cpu_s": {cpu}, "exit": {code}, '
    text += f'"peak_kib": {used.ru_maxrss}, "blocks_read": {used.ru_inblock}}}'
    os.write(answer, text.encode())


def wait(pid: int, limit_s: float) -> bool:
    """Wait for its end; True if it had to be ended, with all of its own children."""
    watch = os.pidfd_open(pid)
    ended, _, _ = select.select([watch], [], [], limit_s)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
    os.close(watch)
    return not ended


main()
