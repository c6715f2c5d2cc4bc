"""What all programs share: flags, threads, clear errors, clean stops."""

import functools
import importlib
import os
import signal
import sys
import threading

from absl import flags

from train_scripts import compile_cache

# The flags belong to the script that defines them, also in --help.
flags.disclaim_key_flags()

# What TensorFlow raises where a computation does not fit into memory, and for
# a file that ends too soon; it is not imported here.
_TOO_LARGE = ("ResourceExhaustedError",)
_DAMAGED = ("OutOfRangeError", "DataLossError")
# What a user has done wrong, or must know of; all else is a mistake of ours.
_KNOWN = (
    *(ValueError, FloatingPointError, ImportError, OSError),
    *(MemoryError, OverflowError),
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Flags whose empty text means something.
_MAY_BE_EMPTY = ("compile_cache", "step_unit")


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
    """

    def __init__(self):
        super().__init__()
        self.int(
            "threads",
            0,
            "Threads of TensorFlow's computations; 0 for one per core.",
            lower_bound=0,
            upper_bound=1024,
        )
        self.str(
            "compile_cache",
            "",
            "Folder where compiled programs are kept for later runs, such as "
            "~/.cache/lopt_tf; it must be yours alone. Empty keeps none.",
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

    def long_run(self):
        """Defines the flags of every long training."""
        self.bool("resume", False, "Resume from the last checkpoint.")
        self.float("checkpoint_every_s", 60.0, "Seconds between checkpoints.")

    def refuse(self, names, reason):
        """Refuses flags that would be ignored.

        Args:
            names: of the flags.
            reason: why they have no effect, as "without --x=y".

        Raises:
            flags.Error: if one of them was given.
        """
        for name in names:
            if self[name].present:
                raise flags.Error(f"--{name} has no effect {reason}.")

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
    handlers = {s: signal.getsignal(s) for s in _SIGNALS}
    hook = sys.unraisablehook
    try:
        if any(arg in ("--help", "-help", "-h", "--helpfull") for arg in argv):
            print(module.__doc__, flag_values.get_help(), sep="\n")
            return 0
        _parse(flag_values, required, argv)
        # The logs of XLA and of device discovery say nothing to a user.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with compile_cache.used(flag_values.compile_cache, say):
            _set_threads(flag_values.threads)
            # Imports swallow exceptions here and there: an interrupt among
            # them would be lost.
            importlib.import_module("lopt_tf")
            _take_interrupts(handlers)
            program()
    except flags.Error as error:
        return _fail(f"{_first_line(error)} See --help.")
    except _KNOWN as error:
        return _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except Restart as reason:
        say(f"{reason} Going on in a new process.")
        command = [sys.executable, *_python_options(sys.orig_argv)]
        command += ["-m", module.__spec__.name, *argv[1:]]
        os.execv(sys.executable, [*command, *reason.arguments])
    except Exception as error:
        if type(error).__name__ in _TOO_LARGE:
            return _fail(f"This does not fit into memory: {error}")
        if type(error).__name__ in _DAMAGED:
            return _fail(f"A file that TensorFlow reads is damaged: {error}")
        if type(error).__name__ == "NoRoomError":
            return _fail(str(error))
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
    return 0


def _parse(flag_values, required, argv):
    # A call knows nothing of an earlier one in the same process.
    for name in flag_values:
        flag_values[name].unparse()
    rest = flag_values(list(argv))[1:]
    if rest:
        raise flags.Error(f"Unexpected argument {rest[0]!r}.")
    for name in flag_values:
        flag_values[name].value = _at_home(flag_values[name].value)
    for name in required:
        if not flag_values[name].value:
            choices = getattr(flag_values[name].parser, "enum_values", ())
            known = f" Known: {', '.join(choices)}." if choices else ""
            raise flags.Error(f"--{name} must be given.{known}")
    for name in flag_values:
        is_empty = flag_values[name].value in ("", [])
        if is_empty and flag_values[name].present and name not in _MAY_BE_EMPTY:
            raise flags.Error(f"--{name} is empty: leave it out, or fill it.")


def _at_home(value):
    """A flag's value, with a leading ~ as the shell would have expanded it.

    After --flag= the shell leaves it alone.
    """
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    if isinstance(value, str) and value.startswith("~"):
        return os.path.expanduser(value)
    return value


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def _take_interrupts(handlers):
    """Makes interrupts exceptions, unless the process was told to ignore them.

    Args:
        handlers: {signal: what handled it before}.
    """
    sys.unraisablehook = _interrupt_again
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt_again(unraisable):
    """Repeats an interrupt that came where Python drops exceptions.

    As in what libraries do at each garbage collection.
    """
    if unraisable.exc_type is KeyboardInterrupt:
        again = [os.getpid(), signal.SIGINT]
        threading.Timer(0.05, os.kill, again).start()
    else:
        sys.__unraisablehook__(unraisable)


def _fail(message):
    print(f"error: {_first_line(message)}", file=sys.stderr)
    return 2


def _python_options(command):
    """What `python -u -m program` has between the two."""
    return command[1 : command.index("-m")] if "-m" in command else []


def _first_line(message):
    """One line, whatever TensorFlow puts into its messages."""
    lines = [line.strip() for line in str(message).splitlines()]
    # AutoGraph's, before the message.
    lines = [line for line in lines if line and line != "in user code:"]
    return next(iter(lines), "unknown")


def _cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _set_threads(count):
    """Sets TensorFlow's thread pools, unless they are already in use."""
    import tensorflow as tf

    # Keras takes seconds, too: an interrupt still ends the process at once.
    import lopt_tf  # noqa: F401

    # It warns of retracing where several problems share a line of code.
    tf.get_logger().setLevel("ERROR")
    threads = count or _cores()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(min(threads, 2))
    except RuntimeError:
        if count:
            raise ValueError(
                "--threads has no effect once TensorFlow has started."
            ) from None


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
