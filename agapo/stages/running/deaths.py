"""A process of the run's is gone (killed, out of memory, its host lost): one line says so, and how the run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

from agapo.cluster import death_in
from agapo.errors import ProcessDied, UserError
from agapo.tracking import RunDirectory
from agapo.tracking.ownership import next_step


@contextmanager
def told_in_a_line(run: RunDirectory) -> Iterator[None]:
    """Turn what Ray raises about a death inside into a UserError. What a worker's own code raised stays as it is."""
    try:
        yield
    except ProcessDied as died:
        raise UserError(f"{died}; {_way_on(run)}") from None
    except Exception as error:
        if how := death_in(error):
            raise UserError(f"a process of the run died ({how}); {_way_on(run)}") from None
        raise


def _way_on(run: RunDirectory) -> str:
    step = next_step(run.path)
    return f"the same command goes on from {f'step {step}' if step else 'what is saved'}"
