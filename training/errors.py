"""The error that a user can mend."""

import click


class TrainingError(click.ClickException):
    """One sentence that says what was wrong and what to do.

    The command line prints it on stderr without a trace and exits with 1.
    """
