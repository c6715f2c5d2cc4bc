"""What all programs share: flags, threads, clear errors, clean stops."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import signal
import sys

from absl import flags

# The flags belong to the script that defines them, also in --help.
flags.disclaim_key_flags()

# What TensorFlow raises for a file that ends too soon.
_DAMAGED = ("OutOfRangeError", "DataLossError")
_COMPILE_CACHE = os.path.join("~", ".cache", "lopt_tf", "xla")


class Restart(Exception):
    """The program has saved its work and must go on in a new process.

    Args:
        reason: why, in a sentence.
        arguments: what the new command line has beyond the old one.
    """

    def __init__(self, reason, arguments=("--resume",)):
        super().__init__(reason)
        self.arguments = arguments


def _method(define):
    """One of absl's DEFINE functions as a method of its `flag_values`."""

    def method(self, *args, **kwargs):
        define(*args, flag_values=self, **kwargs)

    return method


class Flags(flags.FlagValues):
    """The flags of one program; each has --threads and --compile_cache.

    Methods are named after types, and take what absl's DEFINE functions do.

    Args:
        compile_cache: the default of --compile_cache.
    """

    def __init__(self, compile_cache=_COMPILE_CACHE):
        super().__init__()
        self.int(
            "threads",
            0,
            "Threads of TensorFlow's computations; 0 for one per core.",
            lower_bound=0,
        )
        self.str(
            "compile_cache",
            compile_cache,
            "Folder where compiled programs are kept for later runs; empty "
            "keeps none.",
        )

    str = _method(flags.DEFINE_string)
    int = _method(flags.DEFINE_integer)
    float = _method(flags.DEFINE_float)
    bool = _method(flags.DEFINE_bool)
    list = _method(flags.DEFINE_list)
    enum = _method(flags.DEFINE_enum)
    multi_string = _method(flags.DEFINE_multi_string)

    def options(self, table, text):
        """Defines flags without defaults.

        Args:
            table: {name: (type, help)}.
            text: the help, with the table's in place of {}.
        """
        for name, (type_, help_) in table.items():
            define = getattr(self, type_.__name__)
            define(name, None, text.format(help_))

    def given(self, names):
        """{name: value} of those flags that have one."""
        values = {name: self[name].value for name in names}
        return {name: x for name, x in values.items() if x is not None}

    def integers(self, name):
        """The integers of a list flag; () if it was not given."""
        texts = self[name].value or ()
        try:
            return tuple(int(text) for text in texts)
        except ValueError:
            raise flags.Error(
                f"--{name} takes integers, separated by commas. "
                f"Received: {','.join(texts)}"
            ) from None


def main(flag_values, *required):
    """Decorates a function without arguments: it takes the command line.

    It parses the flags, sets TensorFlow up, runs, and returns the exit status.
    Mistakes of the user end in one line on standard error and status 2; an
    interrupted program has saved its work, and returns 130.

    Args:
        flag_values: the program's `Flags`.
        *required: names of flags that must be given.
    """
    return lambda program: functools.partial(
        _run, program, flag_values, required
    )


def _run(program, flag_values, required, argv):
    module = sys.modules[program.__module__]
    try:
        if any(arg in ("--help", "-help", "-h", "--helpfull") for arg in argv):
            print(module.__doc__, flag_values.get_help(), sep="\n")
            return 0
        _parse(flag_values, required, argv)
        # The logs of XLA and of device discovery say nothing to a user.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        signal.signal(signal.SIGTERM, _interrupt)
        _set_compile_cache(flag_values.compile_cache)
        _set_threads(flag_values.threads)
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


def _parse(flag_values, required, argv):
    # A call knows nothing of an earlier one in the same process.
    for name in flag_values:
        flag_values[name].unparse()
    rest = flag_values(list(argv))[1:]
    if rest:
        raise flags.Error(f"Unexpected argument {rest[0]!r}.")
    for name in required:
        if not flag_values[name].value:
            choices = getattr(flag_values[name].parser, "enum_values", ())
            known = f" Known: {', '.join(choices)}." if choices else ""
            raise flags.Error(f"--{name} must be given.{known}")


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def _fail(message):
    print(f"error: {message}", file=sys.stderr)
    return 2


def _set_threads(count):
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


def _set_compile_cache(folder):
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
