"""`demo`: fill posts and comments, and keep changing them, for looking at live results."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import typer

from api.commands.console import refuse, say, served_database, settings_or_exit
from api.settings import Settings
from documents import Demo, DocumentsError, install


def demo(
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="Changes per second.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=0, help="Stop after this time; 0: run until Ctrl-C.")] = 0,
    posts: Annotated[int, typer.Option(min=1, max=10_000, help="How many posts to fill in and to stay near.")] = 60,
    seed: Annotated[int | None, typer.Option(help="Make the same texts and choices each time.")] = None,
) -> None:
    """Fill posts and comments with plausible data, and keep changing them."""
    settings = settings_or_exit()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_demo(settings, rate, seconds, posts, seed))
    except DocumentsError as error:
        raise refuse(error) from None


async def _demo(settings: Settings, rate: float, seconds: float, posts: int, seed: int | None) -> None:
    async with served_database(settings) as (database, registry):
        await install(database, registry, settings.schema_action)
        demonstration = Demo(database, registry, posts=posts, seed=seed)
        # Ctrl-C cancels this task: the way to end the demo, and no fault.
        with contextlib.suppress(asyncio.CancelledError):
            filled, commented = await demonstration.fill()
            say(f"Filled in {filled} posts and {commented} comments. Changing {rate:g} a second; end with Ctrl-C.")
            await demonstration.run(rate, seconds=seconds, tell=say)
        say(demonstration.summary())
