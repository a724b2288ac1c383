"""The one exception that means: the user can mend this."""


class InputError(ValueError):
    """Wrong input, said in one line: what is wrong, where, and how to mend it.

    The entry points print the message without a traceback and exit with code 2.
    """
