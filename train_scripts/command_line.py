"""What all programs share: flags, threads, clear errors, clean stops."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import signal
import sys

from absl import flags

# What TensorFlow raises for a file that ends too soon.
_DAMAGED = ("OutOfRangeError", "DataLossError")


class Restart(Exception):
    """The program has saved its work and must go on in a new process.

    Args:
        reason: why, in a sentence.
        arguments: what the new command line has beyond the old one.
    """

    def __init__(self, reason, arguments=("--resume",)):
        super().__init__(reason)
        self.arguments = arguments


def run(program, flag_values, argv):
    """Parses flags and runs a program; returns the exit status.

    Mistakes of the user end in one line on standard error and status 2; an
    interrupted program has saved its work, and returns 130.

    Args:
        program: function without arguments.
        flag_values: the program's own `flags.FlagValues`.
        argv: the command line, program name first.
    """
    module = sys.modules[program.__module__]
    try:
        if any(arg in ("--help", "-help", "-h", "--helpfull") for arg in argv):
            print(module.__doc__, flag_values.get_help(), sep="\n")
            return 0
        # A call knows nothing of an earlier one in the same process.
        for name in flag_values:
            flag_values[name].unparse()
        rest = flag_values(list(argv))[1:]
        if rest:
            raise flags.Error(f"Unexpected argument {rest[0]!r}.")
        # The logs of XLA and of device discovery say nothing to a user.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        signal.signal(signal.SIGTERM, _interrupt)
        program()
    except flags.Error as error:
        return _fail(f"{error}\nSee --help.")
    except (ValueError, FloatingPointError, ImportError, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except Restart as reason:
        say(f"{reason} Going on in a new process.")
        command = [sys.executable, "-m", module.__spec__.name, *argv[1:]]
        os.execv(sys.executable, [*command, *reason.arguments])
    except Exception as error:
        # TensorFlow's own errors; it is not imported here.
        if type(error).__name__ in _DAMAGED and "TF_XLA_FLAGS" in os.environ:
            return _fail(
                f"A compiled program cannot be read ({error}). Delete the "
                "folder of --compile_cache, or set --compile_cache= to do "
                "without."
            )
        raise
    return 0


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def _fail(message):
    print(f"error: {message}", file=sys.stderr)
    return 2


def define_threads(flag_values):
    """Defines --threads."""
    flags.DEFINE_integer(
        "threads",
        0,
        "Threads of TensorFlow's computations; 0 for one per core.",
        lower_bound=0,
        flag_values=flag_values,
    )


def set_threads(count):
    """Sets TensorFlow's thread pools, unless they are already in use."""
    import tensorflow as tf

    # It warns of retracing where several problems share a line of code.
    tf.get_logger().setLevel("ERROR")
    threads = count or len(os.sched_getaffinity(0))
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(min(threads, 2))
    except RuntimeError:
        if count:
            raise ValueError(
                "--threads has no effect once TensorFlow has started."
            ) from None


def define_compile_cache(flag_values):
    """Defines --compile_cache."""
    flags.DEFINE_string(
        "compile_cache",
        os.path.join("~", ".cache", "lopt_tf", "xla"),
        "Folder where compiled programs are kept for later runs; empty keeps "
        "none.",
        flag_values=flag_values,
    )


def set_compile_cache(folder):
    """Turns XLA's persistent cache on, unless TensorFlow has started."""
    if not folder or "tensorflow" in sys.modules:
        return
    # Machine code of one machine must not reach another kind of machine.
    path = pathlib.Path(folder).expanduser() / _machine()
    path.mkdir(parents=True, exist_ok=True)
    flag = f"--tf_xla_persistent_cache_directory={path}"
    others = os.environ.get("TF_XLA_FLAGS", "")
    if flag not in others:
        os.environ["TF_XLA_FLAGS"] = f"{others} {flag}".strip()


def _machine():
    """A name for the processor's abilities and the TensorFlow version."""
    cpu = pathlib.Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    abilities = sorted({x for x in lines if x.startswith(("flags", "Feat"))})
    text = repr((platform.machine(), platform.processor(), abilities))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"tf{importlib.metadata.version('tensorflow')}-{digest}"


def deferred_stop():
    """Makes interrupts wait: returns whether one has come.

    A second one interrupts at once.
    """
    asked = []

    def note(signum, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    return lambda: bool(asked)


def say(line):
    """Prints a line of progress at once."""
    print(line, flush=True)
