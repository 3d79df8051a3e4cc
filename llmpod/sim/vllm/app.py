"""One fake vLLM as an ASGI app: its layers and its addresses. Not the program, which is `__main__.py`.

From the outside in: the watch (statistics, clients that leave), faults, the key, CORS as vLLM has it, the count of
requests for /metrics, endpoints.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llmpod.sim.vllm import checks
from llmpod.sim.vllm.chat import chat_stream, chat_whole
from llmpod.sim.vllm.completions import completion_job, completion_stream, completion_whole
from llmpod.sim.vllm.counting import Counting, Requests
from llmpod.sim.vllm.engine import Engine, Said
from llmpod.sim.vllm.faults import Faults, Orders
from llmpod.sim.vllm.http import EventStream, Json, Refusal
from llmpod.sim.vllm.info import VERSION, detokenized, models, tokenized
from llmpod.sim.vllm.job import Job, chat_job
from llmpod.sim.vllm.messages import messages_as_chat, messages_stream, messages_whole
from llmpod.sim.vllm.metrics import CONTENT_TYPE, page
from llmpod.sim.vllm.options import VllmOptions
from llmpod.sim.vllm.responses import Response as Answer
from llmpod.sim.vllm.responses import responses_as_chat
from llmpod.sim.vllm.vectors import embedded, reranked, scored
from llmpod.sim.vllm.watch import CALL, Call, Stats, Watch, bearer, is_key

Handler = Callable[[Call], Awaitable[ASGIApp]]


class FakeVllm:
    """The app. Call it as ASGI; `drain()` is what SIGTERM means to it."""

    def __init__(self, options: VllmOptions) -> None:
        self.options = options
        self.engine = Engine(options)
        self.stats = Stats()
        self._orders = Orders()
        self._routes = self._table()
        self._requests: Requests = Counter()
        counted = Counting(self._route, self._routes, self._requests)
        routes = CORSMiddleware(counted, allow_methods=["*"], allow_headers=["*"])
        guarded = _Key(routes, options)
        self._app = Watch(Faults(guarded, self._orders), lambda: self.stats, key=options.api_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def drain(self) -> None:
        """Ends every running answer with finish_reason "abort", and every later one at once."""
        self.engine.drain()

    def _table(self) -> Mapping[str, Mapping[str, Handler]]:
        return {
            "/health": {"GET": _empty},
            "/ping": {"GET": _empty, "POST": _empty},
            "/version": {"GET": _constant({"version": VERSION})},
            "/load": {"GET": self._load},
            "/metrics": {"GET": self._metrics},
            "/v1/models": {"GET": self._models},
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._completions},
            "/v1/responses": {"POST": self._responses},
            "/v1/messages": {"POST": self._messages},
            "/v1/embeddings": {"POST": self._asks(embedded, "input")},
            "/v1/score": {"POST": self._asks(scored, "text_1", "text_2")},
            "/score": {"POST": self._asks(scored, "text_1", "text_2")},
            "/v1/rerank": {"POST": self._asks(reranked, "query", "documents")},
            "/rerank": {"POST": self._asks(reranked, "query", "documents")},
            "/tokenize": {"POST": self._asks(tokenized)},
            "/detokenize": {"POST": self._asks(detokenized, "tokens")},
            "/__sim/stats": {"GET": self._stats},
            "/__sim/faults": {"POST": self._add_fault},
            "/__sim/reset": {"POST": self._reset},
        }

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[CALL]
        methods = self._routes.get(call.path)
        answer: ASGIApp
        if methods is None:
            answer = Json({"detail": "Not Found"}, 404)
        elif call.method not in methods:
            answer = Json({"detail": "Method Not Allowed"}, 405, {"allow": ", ".join(sorted(methods))})
        else:
            try:
                answer = await methods[call.method](call)
            except Refusal as refusal:
                answer = Json(refusal.body, refusal.status)
        await answer(scope, receive, send)

    async def _chat(self, call: Call) -> ASGIApp:
        body = checks.parsed(call.body, required=("messages",))
        job = chat_job(body, self.options)
        said = self._run(job, call)
        if body.get("stream"):
            return EventStream(chat_stream(said, job, body, self.options.name))
        return Json(await chat_whole(said, job, body, self.options.name))

    async def _completions(self, call: Call) -> ASGIApp:
        body = checks.parsed(call.body, required=("prompt",))
        job = completion_job(body, self.options)
        said = self._run(job, call)
        if body.get("stream"):
            return EventStream(completion_stream(said, job, body, self.options.name))
        return Json(await completion_whole(said, job, body, self.options.name))

    async def _responses(self, call: Call) -> ASGIApp:
        body = checks.parsed(call.body, required=("input",))
        checks.sane(body, self.options)
        job = chat_job(responses_as_chat(body), self.options)
        answer = Answer(job, body, self.options.name)
        said = self._run(job, call)
        return EventStream(answer.stream(said)) if body.get("stream") else Json(await answer.whole(said))

    async def _messages(self, call: Call) -> ASGIApp:
        body = checks.parsed(call.body, required=("messages", "max_tokens"))
        job = chat_job(messages_as_chat(body), self.options)
        said = self._run(job, call)
        if body.get("stream"):
            return EventStream(messages_stream(said, job, self.options.name))
        return Json(await messages_whole(said, job, self.options.name))

    def _asks(self, answer: Callable[[Mapping[str, Any], VllmOptions], object], *required: str) -> Handler:
        """A handler for what is answered at once, without the engine."""

        async def handler(call: Call) -> ASGIApp:
            return Json(answer(checks.parsed(call.body, required=required), self.options))

        return handler

    def _run(self, job: Job, call: Call) -> AsyncGenerator[Said, None]:
        return self.engine.run(job.scripts, prompt_tokens=job.prompt_tokens, abort_after=call.abort_after)

    async def _models(self, _: Call) -> ASGIApp:
        return Json(models(self.options))

    async def _load(self, _: Call) -> ASGIApp:
        return Json({"server_load": self.engine.counters.running})

    async def _metrics(self, _: Call) -> ASGIApp:
        text = page(self.engine.counters, self._requests, self.options.name)
        return PlainTextResponse(text, headers={"content-type": CONTENT_TYPE})

    async def _stats(self, _: Call) -> ASGIApp:
        return Json(self.stats.as_json())

    async def _add_fault(self, call: Call) -> ASGIApp:
        try:
            self._orders.add(checks.parsed(call.body, required=("fault",)))
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        return Json({"waiting": len(self._orders.waiting)})

    async def _reset(self, _: Call) -> ASGIApp:
        self.stats.reset()
        self._orders.waiting.clear()
        return Json({})


def vllm_app(options: VllmOptions) -> FakeVllm:
    """A fake vLLM, ready to be served. Of one event loop."""
    return FakeVllm(options)


class _Key:
    """vLLM guards /v1/* with its key, and nothing else; a preflight needs none."""

    def __init__(self, app: ASGIApp, options: VllmOptions) -> None:
        self._app = app
        self._key = None if options.ignore_key else options.api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[CALL]
        guarded = call.path.startswith("/v1") and call.method != "OPTIONS" and self._key is not None
        if guarded and not is_key(bearer(call.headers.get("authorization", "")), self._key):
            await Json({"error": "Unauthorized"}, 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _empty(_: Call) -> ASGIApp:
    return Response()


def _constant(value: object) -> Handler:
    async def answer(_: Call) -> ASGIApp:
        return Json(value)

    return answer
