"""The one error class for a user's mistake."""


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence without a traceback and exits with
    code 2. Programming errors stay ordinary exceptions.
    """


def one_line(text):
    """Return text on one line; what a damaged file or a notebook holds must not steer the terminal."""
    text = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
