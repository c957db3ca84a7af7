"""The one exception for input that the user can mend."""


class UserError(ValueError):
    """Bad input: a file, folder, key or value that the user can change.

    The message is one line that names the file or key, says what was expected and what to do. Entry points print it
    without a traceback and exit with status 2 (see `mindghost.cli.command.run_command`).
    """


class RunError(RuntimeError):
    """A run that cannot go on (a loss that is not finite, a full disk), through no fault in the code.

    The message is one line that says where the run stood and what is kept. Entry points print it without a traceback
    and exit with status 1.
    """


class Stopped(RuntimeError):
    """A run that was asked to stop by a signal and did so in order. Entry points print the message and exit 128 + n.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
