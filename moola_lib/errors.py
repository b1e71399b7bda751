"""The one error class for a user's mistake."""


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence without a traceback and exits with
    code 2. Programming errors stay ordinary exceptions.
    """
