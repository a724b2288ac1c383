"""Failures of single cases, told from those of the output's disk."""

import errno
import os
from pathlib import Path

from absl import logging

from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import Row

_OF_A_CASE = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def failed_row(case: str, source: Path, error: Exception) -> Row:
    """Returns the row of a failed case; unexpected errors are logged with traceback."""
    words = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.filename:
        words = f"{error.strerror}: {error.filename}"[:300]
    elif not isinstance(error, InputError):
        logging.exception("case %s failed", case)
        words = f"{type(error).__name__}: {words}"
    status = cases_table.FAILED + words
    return cases_table.new_row(
        REVIEW_COLUMNS, case=case, status=status, input=str(source)
    )


def is_of_the_disk(error: Exception, output: Path) -> bool:
    """Tells whether an error concerns the output's disk, so that later cases fail too.

    A name that is too long, or a path that may not be written or is taken by another
    file, concerns a single case.
    """
    if not isinstance(error, OSError):
        return False
    ours = Path(error.filename or output).is_relative_to(output)
    closed = error.errno in (errno.EACCES, errno.EPERM)
    of_a_case = os.access(output, os.W_OK) if closed else error.errno in _OF_A_CASE
    return ours and not of_a_case
