#!/usr/bin/env python3
"""A terminal for tests: what is written to standard input is typed, what the terminal shows comes out of standard output.

    terminal.py run COMMAND...     runs COMMAND on a new terminal, and ends with its status
    terminal.py receive SOCKET     listens at SOCKET for a terminal's master, as conmon does with --console-socket; says "listening" and then the
                                   terminal's name on standard error

Lines "ROWS COLUMNS" on descriptor 3 resize it; closing standard input hangs up.
"""
import array
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import sys
import termios


def resize(master, rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def receive(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    print("listening", file=sys.stderr, flush=True)
    peer, _ = listener.accept()
    name, control, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(4))
    descriptors = array.array("i", control[0][2][:4])
    print(name.decode(), file=sys.stderr, flush=True)
    return descriptors[0]


def run(command):
    pid, master = pty.fork()
    if pid == 0:
        resize(0, 24, 80)
        os.execvp(command[0], command)
    return pid, master


def relay(master):
    """Copies both ways until the terminal is gone."""
    sources = [master, 0, 3]
    while True:
        for ready in select.select(sources, [], [])[0]:
            try:
                data = os.read(ready, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                data = b""
            if ready == master:
                if not data:
                    return
                os.write(1, data)
            elif ready == 0:
                if not data:
                    return
                os.write(master, data)
            elif data:
                for line in data.decode().splitlines():
                    resize(master, *map(int, line.split()))
            else:
                sources.remove(3)


def main():
    if sys.argv[1] == "receive":
        relay(receive(sys.argv[2]))
        return
    pid, master = run(sys.argv[2:])
    relay(master)
    os.close(master)  # hangs up
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


signal.signal(signal.SIGPIPE, signal.SIG_DFL)
main()
