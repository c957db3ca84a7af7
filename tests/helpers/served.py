"""`mindghost` for scripts that call it many times: each call is a fork of one process, which has imported MindSpore.

    with served(folder) as program:
        program COMMAND ARGUMENTS     (in a shell: short_program.py's network, and its small trainings)

A call has the caller's arguments, environment, folder and streams, and ends with its own exit status, but not at the
signals that the caller gets. Below mpirun it is a process of its own.
"""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__)
LONGEST = 1 << 20  # bytes of a call's arguments and environment


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Path]:
    """A program in `folder`, named `mindghost`, that works until the block ends."""
    from tests.helpers.launchers import environment

    address, program = folder / "socket", folder / "mindghost"
    server = subprocess.Popen(
        [sys.executable, str(HERE), str(address)], stdout=subprocess.PIPE, env=environment(folder), cwd=folder
    )
    try:
        assert server.stdout.readline() == b"ready\n"
        # Without what Python looks for at its start: the caller only sends its words.
        call = shlex.join([sys.executable, "-S", "-E", str(HERE), str(address)])
        alone = shlex.join([sys.executable, str(HERE.with_name("short_program.py"))])
        program.write_text(f'#!/bin/sh\n[ -z "$OMPI_COMM_WORLD_SIZE" ] || exec {alone} "$@"\nexec {call} "$@"\n')
        program.chmod(0o755)
        yield program
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def call(address: str, words: list[str]) -> int:
    """Exit status of a call."""
    content = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
    assert len(content) < LONGEST
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
        line.connect(address)
        socket.send_fds(line, [content], [0, 1, 2])
        return int(line.recv(16))


def serve(address: str) -> NoReturn:
    """Take calls, one after the other."""
    from mindghost.process.signals import importing

    with importing():
        import mindghost.deploy.export
        import mindghost.evaluate.validate
        import mindghost.inference.predictor
        import mindghost.train.trainer  # noqa: F401

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            with listener.accept()[0] as line:
                content, streams, _, _ = socket.recv_fds(line, LONGEST, 3)
                if (child := os.fork()) == 0:
                    listener.close()
                    line.close()
                    answer(*json.loads(content), streams)
                for stream in streams:
                    os.close(stream)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                line.send(str(status if status >= 0 else 128 - status).encode())


def answer(words: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> NoReturn:
    """Be the program that was called."""
    from tests.helpers import short_program

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    short_program.run(words[0], words[1:])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(call(sys.argv[1], sys.argv[2:]))
    serve(sys.argv[1])
