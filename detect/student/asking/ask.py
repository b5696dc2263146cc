"""Asking a plan: many requests at once, each on record before it is used, and answers released in the plan's order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Coroutine
from typing import Any, Generic

from detect.student.asking.account import REFUSED, Account, ClientSettings
from detect.student.asking.answers import Response, error_message, read_response
from detect.student.asking.budget import Budget, Budgets, BudgetSpent, Reservation, cost_of, written_tokens
from detect.student.asking.client import Endpoint, Reply
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import Draft, Ledger
from detect.student.asking.pace import Pace, Stopped, backoff, retry_after
from detect.student.asking.questions import Questions, Request, T, Taken
from detect.student.asking.reach import Unreachable, cannot_reach, shown_host
from detect.student.asking.recorder import Recorder
from detect.student.asking.refusals import Refusals, is_of_prompt
from detect.student.asking.trouble import Tell, Trouble
from watermark.errors import DyetraceError, MachineError

_GIVEN_UP_IN_A_ROW = 5  # requests that no attempt could settle, without one success in between
_UNUSABLE_AT_FIRST = 5  # responses in which there was nothing to use, before any that could be used
_MOST_MODELS = 20
_UNPAID = 402  # the account has nothing left: no request is taken
_THROTTLED = 4.0  # times the first backoff, where an endpoint is throttled and says not for how long: often a minute
_KEPT = "Ctrl-C keeps what is answered"


class Asker(Generic[T]):
    """A plan being asked, for use inside one event loop: `start`, `next` until None, `stop`.

    Parameters
    ----------
    questions, ledger, key, budgets, settings, tell
        As for `detect.student.asking.asking.ask_all`.
    """

    def __init__(
        self,
        questions: Questions[T],
        ledger: Ledger,
        key: ApiKey | None,
        budgets: Budgets | None,
        settings: ClientSettings,
        tell: Tell | None = None,
    ) -> None:
        canonical = questions.canonical
        if key is not None:
            _refuse_secret(canonical, key)
        self.account = Account()
        self._questions, self._ledger, self._key, self._settings = questions, ledger, key, settings
        self._sha256, self._steps = questions.sha256, questions.steps
        entered = ledger.enter_plan(self._sha256, canonical)
        self.account.before_plan = ledger.answered_before(entered.number)
        spent = ledger.spent(self._sha256)
        self._budget = Budget(questions.budgets.tightened(budgets), spent.requests, spent.tokens)
        self._pace = Pace(settings.start, settings.most)
        self._host = shown_host(questions.url)
        self._trouble = Trouble(self._host, settings.timeout, _KEPT, tell)
        self._tell, self._told = tell or (lambda line: None), False
        self._refusals = Refusals(self._host)
        self._next = 0
        self._tasks: deque[asyncio.Task[list[T]]] = deque()
        self._ready: deque[list[T]] = deque()
        self._fatal: DyetraceError | None = None
        self._ended = asyncio.Event()
        self._went_well = self._given_up = 0  # in this run
        self._failed_at_first = 0  # before anything went well, whichever request it was
        self._slower = 1.0  # factor of the next pause
        self._known_to_work = settings.tried  # or it went well in this run or, by the ledger, in an earlier one
        self._useful = self._complete = 0  # responses with usable answers, and with some that lack nothing
        self._useless: Counter[str] = Counter()
        self._last_trouble = ""
        self._turn = asyncio.Lock() if settings.in_order else contextlib.nullcontext()  # served as they come

    async def start(self) -> None:
        """Open the connections."""
        self._recorder = Recorder(self._ledger)
        self._endpoint = Endpoint(
            self._questions.url,
            self._key,
            connections=self._settings.most,
            timeout=self._settings.timeout,
            largest=self._questions.largest_body,
        )

    async def next(self) -> list[T] | None:
        """The next step's answers, as `_next_answers` has them; what is wrong while none comes is told."""
        async with self._trouble.watched():
            return await self._next_answers()

    async def _next_answers(self) -> list[T] | None:
        """The usable answers of the next step, in the order of samples; None after the last.

        Once the budget is spent, steps without answers after the last that has some are left out.

        Raises
        ------
        DyetraceError
            The endpoint can't be asked, or the ledger can't be written.
        """
        if self._ready and self._ready[-1]:
            return self._release()
        while True:
            while self._next < self._steps and len(self._tasks) < self._window() and not self._ended.is_set():
                self._tasks.append(asyncio.create_task(self._step(self._next)))
                self._next += 1
            if not self._tasks:
                if self._fatal is not None:
                    raise self._fatal
                self._refusals.check_end(self._known_to_work)
                self.account.stopped = "budget spent" if self._budget.spent else "plan finished"
                return None
            await asyncio.wait([self._tasks[0]])
            answers = self._tasks.popleft().result()
            self._ready.append(answers)
            if answers or not self._budget.spent:
                return self._release()

    async def stop(self) -> None:
        """Send nothing more, put on record what comes back within the grace period, and close the connections."""
        if self.account.stopped is None:
            self.account.stopped = "closed"
        self._pace.close()
        self._ended.set()
        running = [task for task in self._tasks if not task.done()]
        if running:
            await asyncio.wait(running, timeout=self._settings.grace)
        await self.abandon()

    async def abandon(self) -> None:
        """Give up requests under way at once; they count as spent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._recorder.close()
        await self._endpoint.close()

    def refresh(self) -> Account:
        """The account, brought up to date."""
        self.account.requests, self.account.tokens = self._budget.requests, self._budget.tokens
        self.account.in_flight, self.account.limit = self._pace.in_flight, int(self._pace.limit)
        self.account.paused = max(0.0, self._pace.paused_until - time.monotonic())
        return self.account

    def _window(self) -> int:
        """Steps that may be under way: enough to keep the endpoint busy, few enough to waste little at the target."""
        if self._settings.in_order:
            return 1  # the reply to a step may decide whether the next one is asked
        requests = max(1, len(self._questions.samples_of(self._next)))
        return 2 + int(2 * self._pace.limit) // requests

    def _release(self) -> list[T]:
        answers, account = self._ready.popleft(), self.account
        account.prompts += 1
        account.answers += len(answers)
        account.repeated += self._questions.repeated(answers)
        return answers

    async def _step(self, step: int) -> list[T]:
        parts = [self._samples(step, samples) for samples in self._questions.samples_of(step)]
        return [answer for part in await _together(parts) for answer in part]

    async def _samples(self, step: int, samples: range) -> list[T]:
        """Some samples of a step; a server that knows no ``n`` sends one, and is asked again."""
        found: list[T] = []
        sample = samples.start
        while sample < samples.stop:
            request = self._questions.request(step, sample, samples.stop - sample)
            try:
                got = await self._answer(request)
                if got is None:
                    refused = self._refusals.of(step) is not None
                    self.account.unusable[REFUSED if refused else "no answer to be had"] += request.count
                    break
                response, taken = got
                self._count(request, response, taken)
                found += taken.answers
            except (Stopped, BudgetSpent):
                if self._fatal is not None:
                    raise self._fatal from None
                if self._budget.spent:
                    self._pace.close()
                break
            except DyetraceError as error:
                if self._fatal is None:
                    self._fatal = error
                self._pace.close()
                self._ended.set()
                raise self._fatal from None  # what went wrong first, whichever step is waited for
            sample += max(1, len(response.choices))
        return found

    async def _answer(self, request: Request) -> tuple[Response, Taken[T]] | None:
        """From the ledger, or else from the endpoint."""
        entry = self._ledger.answer(request.key)
        if entry is None and self._settings.skips and self._is_refused(request):
            return None
        if entry is None:
            async with self._turn:
                return await self._send(request)
        self.account.cached += 1
        self._known_to_work = True
        self._budget.learn(request.bound, entry.tokens)
        response = _read(entry.payload, request.count, entry.meta.get("problem"))
        return response, self._taken(request, entry.number, entry.payload, response)

    def _is_refused(self, request: Request) -> bool:
        """Whether a prompt was refused, in this run or for its words in an earlier one: asking again gains nothing."""
        if self._refusals.of(request.step) is not None:
            return True
        entry = self._ledger.last_failure(request.key)
        if entry is None or not is_of_prompt(entry.meta.get("status"), entry.payload):
            return False
        says = f"status {entry.meta['status']}: {error_message(entry.payload)}"
        self.account.refused = self._refusals.on_record(request.step, says)
        return True

    def _count(self, request: Request, response: Response, taken: Taken[T]) -> None:
        account = self.account
        account.prompt_tokens += response.prompt_tokens or 0
        account.completion_tokens += written_tokens(response, request.most_tokens) or 0
        if response.model and len(account.models) < _MOST_MODELS:
            account.models.add(response.model)
        account.unusable.update(taken.unusable)
        account.without_logprobs += taken.lacking

    def _taken(self, request: Request, entry: int, payload: bytes, response: Response) -> Taken[T]:
        """What a reply gave; stop early where an endpoint's answers are of no use at all: they cost money."""
        taken = self._questions.take(request, entry, payload, response)
        self._useful += bool(taken.answers)
        self._complete += len(taken.answers) > taken.lacking
        if taken.answers and taken.needed is not None and not self._complete and not self._told:
            raise DyetraceError(f"{self._host} sends {taken.needed}")
        if taken.told is not None and not self._told:
            self._told = True
            self._tell(f"{self._host}: {taken.told}")
        if self._useful:
            return taken
        self._useless[taken.unusable[0] if taken.unusable else ""] += 1
        (reason, times), *_ = self._useless.most_common(1)
        if times >= _UNUSABLE_AT_FIRST:
            raise DyetraceError(
                f"{self._host} sends nothing that can be used ({reason}, {times} times); check the address and the "
                "plan, and begin with a new ledger once that is mended"
            )
        return taken

    async def _send(self, request: Request) -> tuple[Response, Taken[T]] | None:
        """An answer, after as many attempts as it takes; None where none can be had."""
        meta = {"prompt": request.step, "sample": request.sample, "count": request.count, "url": request.url}
        wait: float | None = None
        for attempt in range(self._settings.attempts):
            epoch = await self._pace.enter((request.step, request.sample))
            try:
                if self._refusals.of(request.step) is not None:
                    return None  # another request of the same prompt was refused while this one waited
                reserved = await self._budget.reserve(request.bound)
                self.account.retries += attempt > 0
                draft = Draft(
                    "asked", request.key, self._sha256, reserved.held, meta | {"attempt": attempt}, request.body
                )
                answer, wait = await self._exchange(request, draft, reserved, epoch)
                if answer is not None:
                    return answer
                if self._refusals.of(request.step) is not None:
                    self._trouble.answered()
                    return None
                pause = None if wait is None else self._pause_after(attempt, wait)
                if wait is not None and pause is None and self._went_well == 0:
                    self._pace.close()  # before the place is given back: whoever waits for it would send
            except DyetraceError:
                self._pace.close()  # likewise
                raise
            finally:
                self._pace.leave()
            if wait is None:
                self._trouble.answered()  # it is up: this one request is what it doesn't take
                break
            self._trouble.failed(self._last_trouble, pause)
            if pause is None:
                break
            await self._pause(pause)
        self._given_up += 1
        if (wait is not None and self._went_well == 0) or self._given_up >= _GIVEN_UP_IN_A_ROW:
            raise MachineError(
                f"{self._host} does not answer ({self._last_trouble}); "
                "what came so far is kept: the same command goes on from there"
            )
        return None

    def _pause_after(self, attempt: int, wait: float) -> float | None:
        """Seconds to wait before the next attempt, no fewer than ``wait``; None where there is none.

        Until something went well all requests count as one, and wait together: an endpoint that takes them and never
        answers is given up after as many attempts as one request has.
        """
        at_first = self._went_well == 0
        if at_first:
            attempt, self._failed_at_first = self._failed_at_first, self._failed_at_first + 1
        if attempt + 1 >= self._settings.attempts:
            return None
        pause = max(wait, backoff(attempt, self._slower * self._settings.first_backoff))
        if at_first:
            self._pace.pause(pause)
        return pause

    async def _exchange(
        self, request: Request, draft: Draft, reserved: Reservation, epoch: int
    ) -> tuple[tuple[Response, Taken[T]] | None, float | None]:
        """Record, send, record: the answer, or else the seconds to wait before trying again (None: don't)."""
        cost = reserved.held  # until more is known: whatever happens from here on may be charged
        try:
            asked = await self._recorder.append(draft)
            self._trouble.sent()
            try:
                reply = await self._endpoint.post(draft.payload, request.url)
            except Unreachable as error:
                cost = reserved.held if error.connected else 0
                await self._failed(draft, asked, cost, {"reason": error.reason})
                return None, self._unreachable(error, epoch)
            except asyncio.CancelledError:
                await self._failed(draft, asked, cost, {"reason": "given up while under way"})
                raise
            response = _read(reply.payload, request.count, reply.problem)
            verdict = reply.verdict(response.error)
            most = request.most_tokens
            cost = cost_of(response, request.count, most, reserved.held) if verdict == "answer" else 0
            meta = {"status": reply.status, "headers": reply.headers, "seconds": round(reply.seconds, 3)}
            if reply.problem is not None:
                meta["problem"] = reply.problem
            if verdict != "answer":
                await self._failed(draft, asked, cost, meta, reply.payload)
                return None, self._refused(request, reply, verdict, epoch)
            done = Draft("answered", draft.key, draft.plan, cost, meta, reply.payload, asked)
            number = await self._recorder.append(done)
        finally:
            self._budget.settle(reserved, cost)
        taken = self._taken(request, number, reply.payload, response)
        self._trouble.answered()
        self._went_well += 1
        self._given_up, self._known_to_work = 0, True
        self._refusals.answered()
        tokens = response.completion_tokens or request.count * request.most_tokens
        self._pace.went_well(reply.seconds, tokens // max(1, len(response.choices)))
        return (response, taken), None

    async def _failed(self, draft: Draft, asked: int, cost: int, meta: dict[str, Any], payload: bytes = b"") -> None:
        await self._recorder.append(Draft("failed", draft.key, draft.plan, cost, meta, payload, asked))

    def _unreachable(self, error: Unreachable, epoch: int) -> float:
        self._last_trouble, self._slower = error.reason, 1.0
        if self._went_well == 0 and not error.connected:
            raise MachineError(cannot_reach(self._questions.url, error))
        self._pace.refused(epoch)
        return 0.0

    def _refused(self, request: Request, reply: Reply, verdict: str, epoch: int) -> float | None:
        self._last_trouble, self._slower = reply.says(), 1.0
        of_prompt = is_of_prompt(reply.status, reply.payload)
        if self._settings.skips and ((verdict == "refused" and reply.status != _UNPAID) or of_prompt):
            if not self._refusals.count:
                self._tell(f"{self._host}: refuses a prompt ({reply.says()}); it is left out, as others will be")
            advice = _advice(reply.status)
            counted = self._refusals.refused(request.step, reply.says(), advice, self._known_to_work, of_prompt)
            self.account.refused = counted
            return None
        if verdict == "stop" or (verdict == "refused" and not (self._known_to_work and reply.status != _UNPAID)):
            raise DyetraceError(f"{self._host} refuses: {reply.says()}; {_advice(reply.status)}")
        if verdict == "refused":
            return None
        self._pace.refused(epoch)
        wait = retry_after(reply.headers, time.time())
        if wait is None:
            self._slower = _THROTTLED if reply.status == 429 else 1.0
            return 0.0
        if wait > self._settings.longest_pause:
            raise MachineError(
                f"{self._host} asks to wait {wait:,.0f} s; run the same command again after that: "
                "what came so far is kept"
            )
        self._pace.pause(wait)
        return wait

    async def _pause(self, seconds: float) -> None:
        """Wait, unless asking ends."""
        try:
            await asyncio.wait_for(self._ended.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped


async def _together(parts: list[Coroutine[Any, Any, list[T]]]) -> list[list[T]]:
    """Run to the end whatever happens to one of them, then raise what happened."""
    if not parts:
        return []
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    errors = [error for task in tasks if (error := task.exception()) is not None]
    if errors:
        raise errors[0]
    return [task.result() for task in tasks]


def _read(payload: bytes, count: int, problem: str | None) -> Response:
    return read_response(payload, count) if problem is None else Response(problem=problem)


def _refuse_secret(canonical: bytes, key: ApiKey) -> None:
    if key.redact(canonical) != canonical:
        raise DyetraceError("the plan holds the API key; remove it: the key is only ever sent as a header")


def _advice(status: int) -> str:
    if status == 407:
        return "check the proxy's user and password in HTTPS_PROXY or HTTP_PROXY"
    if status in (401, 403, 429):
        return "check the API key and what it may do"
    if status in (404, 405) or status < 400:
        return "check the address, the model's name and the kind of endpoint"
    return (
        "check the plan's sampling settings: not every server takes all, and a plan made anew finds those that it "
        "takes, but not how many tokens it allows for an answer"
    )
