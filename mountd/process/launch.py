"""Becomes the program of a child: `launch.py FD`, FD being a memfd that holds the order, and takes the answer.

The directory is entered, and the program looked up, after this first exec: a chdir or an exec on a mount that hangs
must hang a child that can be killed, not the fork inside the daemon. What a child must not inherit from the parent of
mountd is reset here: signals that are ignored (by `nohup`, or `mountd run &` in a script) or blocked; so is the limit
of open files, which mountd has raised for itself, before the program can see it or its user keep it. Not a shell:
that would drop variables whose names are no shell names. Not env(1): what it exits with may be the program's own code.

The order is (program and its words, environment, directory, cgroup or None, (uid, gid, groups) or None, soft and hard
limit of open files), all text as bytes. What cannot be carried out is answered with `ANSWER`, a step and an errno;
nothing, when the program runs.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` wraps: that would double the time of a start
import errno
import marshal
import os
import resource
import sys

ANSWER = b"!"
"""Begins no order."""
USER, DIRECTORY, MISSING, INTERPRETER, PROGRAM = "user", "directory", "missing", "interpreter", "program"
"""At which step it failed; `PROGRAM`: it is there, and cannot be executed."""
CANNOT_ENTER, CANNOT_EXECUTE, NOT_FOUND = 125, 126, 127
"""What it exits with, as env(1) and shells do; a program may end with these, too, so only the answer is certain."""
_SHELL = b"/bin/sh"


Order = tuple[
    list[bytes],
    dict[bytes, bytes],
    bytes,
    "bytes | None",
    "tuple[int, int, tuple[int, ...]] | None",
    tuple[int, int],
]


def reset_signals() -> None:
    """Default dispositions, an empty mask: also what was sent meanwhile is heard now."""
    for number in range(1, _signal.NSIG):
        try:  # noqa: SIM105 (contextlib is not loaded yet)
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL, SIGSTOP, those of the C library
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def enter_cgroup(cgroup: bytes) -> None:
    """Where that fails the app is known by the other marks of a child."""
    try:
        fd = os.open(cgroup + b"/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
    except OSError:
        pass


def limit_descriptors(limits: tuple[int, int]) -> None:
    try:  # noqa: SIM105 (as above)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    except (OSError, ValueError):
        pass  # somebody has lowered mountd's own since


def execute(argv: list[bytes], environment: dict[bytes, bytes]) -> OSError:
    """As execvp(3), which tries the directories of PATH in order; returns only the reason why it cannot."""
    program = argv[0]
    if b"/" in program:
        return _execute(program, argv, environment)
    failure = OSError(errno.ENOENT, "")
    for directory in environment.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        error = _execute(os.path.join(directory, program), argv, environment)
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE):
            return error
        if error.errno == errno.EACCES or error.filename is not None:
            failure = error
    return failure


def _execute(path: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> OSError:
    try:
        os.execve(path, argv, environment)  # noqa: S606 (not a shell, see above)
    except OSError as error:
        if error.errno == errno.ENOEXEC:  # a script without a first line that names its interpreter
            try:
                os.execve(_SHELL, [_SHELL, path, *argv[1:]], environment)  # noqa: S606
            except OSError as of_shell:
                return of_shell
        # `filename` is set when it is there, and only what is to run it is not.
        there = error.errno == errno.ENOENT and os.path.exists(path)
        return OSError(error.errno, error.strerror, path) if there else OSError(error.errno, error.strerror)
    raise AssertionError  # it never returns


def carry_out(order: Order) -> tuple[str, int, int]:
    """Returns only when it cannot: the step, its errno, the exit code."""
    argv, environment, directory, cgroup, user, descriptors = order
    limit_descriptors(descriptors)
    if cgroup is not None:
        enter_cgroup(cgroup)
    if user is not None:
        uid, gid, groups = user
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)  # of root: all three; and unlike setresuid it knows no -1 that changes nothing
        except OSError as error:
            return USER, error.errno or 0, CANNOT_EXECUTE
    try:
        os.chdir(directory)
    except OSError as error:
        return DIRECTORY, error.errno or 0, CANNOT_ENTER
    failure = execute(argv, environment)
    if failure.errno == errno.ENOENT:
        return INTERPRETER if failure.filename is not None else MISSING, failure.errno, NOT_FOUND
    return PROGRAM, failure.errno or 0, CANNOT_EXECUTE


if __name__ == "__main__":
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    reset_signals()
    given = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))  # noqa: S302 (mountd wrote it)
    os.ftruncate(fd, 0)
    step, number, code = carry_out(given)
    os.pwrite(fd, ANSWER + f"{step} {number}".encode(), 0)
    os._exit(code)
