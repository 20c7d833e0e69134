"""What a tab is told, and when: quick answers at once, slow ones in steps, newest wish first."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from experiments.explore.session import Answer, Message, Session, note
from experiments.runtime.errors import is_refusal, machine_trouble
from latent_flows._validation import what

Result = TypeVar("Result")

QUICK = ThreadPoolExecutor(2, thread_name_prefix="quick")
"""What takes a moment does not wait for what takes longer."""
SLOW = ThreadPoolExecutor(2, thread_name_prefix="slow")

CHANGES = frozenset(("random", "code", "reset", "undo", "redo", "use", "layers", "label"))
"""After which what is seen along the way is another."""


class Tab:
    """One tab, and what is under way for it."""

    def __init__(self, session: Session, deliver: Callable[[list[Answer]], None]) -> None:
        self.session = session
        self._deliver = deliver
        self.closed = False
        self._lock = asyncio.Lock()
        self._newest: dict[str, int] = {}
        self._doing: set[asyncio.Task] = set()

    def deliver(self, answers: list[Answer]) -> None:
        """Tells, as long as somebody listens."""
        if not self.closed:
            self._deliver(answers)

    async def hear(self, message: Message) -> None:
        """Answers a message of the page; whatever is wrong with it is said there."""
        try:
            await self._hear(message)
        except Exception as error:  # one tab's trouble must not end the server
            seq = message.get("seq") if isinstance(message, Mapping) else None
            self.deliver([_trouble(error) | {"seq": seq}])

    def close(self) -> None:
        """Nobody looks any more."""
        self.closed = True
        for task in self._doing:
            task.cancel()

    async def _hear(self, message: Message) -> None:
        verb = message["do"]
        if verb == "ready":
            await self._begin(str(message.get("view", "")))
        elif verb in Session.QUICK:
            async with self._lock:
                answers = await _in(QUICK, self.session.quick, message)
            self.deliver(answers)
            if verb in CHANGES:
                self._follow()
                if any(answer["kind"] == "map" for answer in answers):
                    self._shade()
            elif verb == "release" and self._take_up(message):
                self._follow()
        elif verb == "tap":
            place = float(message["x"]), float(message["y"])
            await self._tap(lambda: self.session.tapped(*place))
        elif verb == "enter":
            # Where the cursor is once the arrows before it are answered, not where it is now.
            await self._tap(lambda: self.session.tapped(*self.session.cursor))
        elif verb == "looks":
            await self._look(message)
        elif verb == "picture":
            self._invert(message)
        else:
            raise ValueError(f"the page asked for {str(verb)[:40]!r}, which nobody knows")

    async def _begin(self, link: str) -> None:
        async with self._lock:
            notes = await _in(QUICK, self.session.open, link) if link else []
            hello = await _in(QUICK, self.session.hello)
        self.deliver([hello, self.session.map(), self.session.place(), *notes])
        target = self.session.history.now.target
        if target is None:
            self._follow()
        else:
            self._measure()
        self._shade()

    async def _tap(self, tapped: Callable[[], list[Answer] | None]) -> None:
        async with self._lock:
            answers = await _in(QUICK, tapped)
        if answers is None:
            self.deliver([self.session.place(), note("measuring both ways ...")])
            self._measure()
        else:
            self.deliver(answers)
            self._follow()

    async def _look(self, message: Message) -> None:
        before = self.session.looks
        async with self._lock:
            answers = await _in(QUICK, self.session.look_differently, message)
        after = self.session.looks
        if before._replace(track=after.track) != after:
            self.deliver([*answers, self.session.place(), self.session.way()])
            self._shade()
        if before.track != after.track:
            self.deliver([self.session.place()])
            self._follow()

    def _take_up(self, message: Message) -> bool:
        """The strip shows what the slider does that was moved last, unless a tap came between."""
        if self.session.history.now.target is not None:
            return False
        controls = self.session.explored.controls
        index = int(message.get("index", 0))
        if 0 <= index < len(controls):
            was = self.session.looks.track
            self.session.looks = self.session.looks._replace(track=controls[index].name)
            strip = self.session.strip
            return strip is None or was != self.session.looks.track or len(controls) > 1
        return False

    # --- slow ---

    def _follow(self) -> None:
        compute = self.session.follow()
        self._start("strip", lambda: iter([self.session.keep_strip(compute())]))

    def _shade(self) -> None:
        self._start("shade", lambda: ([answer] for answer in self.session.shades()))

    def _measure(self) -> None:
        now = self.session.history.now
        start, end = self.session.seen.latent, now.target
        assert end is not None

        def steps() -> Iterator[list[Answer]]:
            found = self.session.measured(start, end)
            if self.session.history.now.target is end:
                yield self.session.keep_ways(found)
                compute = self.session.follow()
                yield self.session.keep_strip(compute())

        self._start("strip", steps)

    def _invert(self, message: Message) -> None:
        def steps() -> Iterator[list[Answer]]:
            for answer in self.session.inverted(message):
                if answer["kind"] != "found":
                    yield [answer]
                    continue
                yield self.session.keep_picture(answer["latent"], answer["origin"])
                compute = self.session.follow()
                yield self.session.keep_strip(compute())
                yield from ([shade] for shade in self.session.shades())

        self._start("picture", steps)

    def _start(self, wish: str, steps: Callable[[], Iterator[list[Answer]]]) -> None:
        token = self._newest[wish] = self._newest.get(wish, 0) + 1
        task = asyncio.ensure_future(self._work(wish, token, steps))
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _work(
        self, wish: str, token: int, steps: Callable[[], Iterator[list[Answer]]]
    ) -> None:
        """Delivers step after step, unless a newer wish of the same kind has come."""
        await asyncio.sleep(0.02)  # of wishes that come at once only the last is met
        try:
            iterator: Iterator[list[Answer]] | None = None
            while not self.closed and self._newest[wish] == token:
                if iterator is None:
                    iterator = await _in(SLOW, steps)
                answers = await _in(SLOW, next, iterator, None)
                if answers is None:
                    return
                if self._newest[wish] == token:
                    self.deliver(answers)
        except Exception as error:  # one tab's trouble must not end the server
            self.deliver([_trouble(error) | {"of": wish}])


def _trouble(error: Exception) -> Answer:
    """What a tab is told of an error: in words where it was foreseen."""
    if isinstance(error, ValueError) and is_refusal(error, __name__):
        return note(str(error), wrong=True)
    if trouble := machine_trouble(error):
        return note(trouble, wrong=True)
    print(f"warning: a tab's wish failed ({what(error)})", file=sys.stderr, flush=True)
    return note(f"that failed ({what(error)})", wrong=True)


_under_way: set[object] = set()


def is_idle() -> bool:
    """Whether nothing is computed for any tab."""
    return not _under_way


async def _in(pool: ThreadPoolExecutor, function: Callable[..., Result], *args: Any) -> Result:
    mark = object()
    _under_way.add(mark)
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)
    finally:
        _under_way.discard(mark)
