"""The bot, connected to Slack by Socket Mode: Slack is called from here, and nothing listens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from windlass.core.errors import MissingExtra, ProviderError
from windlass.core.protocols import ChatModel
from windlass.core.workspace import Workspace
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.slack.bot import Score, SlackBot
from windlass.loop.slack.questions import FILE, Questions

try:
    from slack_sdk.errors import SlackApiError
    from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
    from slack_sdk.socket_mode.builtin import SocketModeClient
    from slack_sdk.web import WebClient
except ModuleNotFoundError as error:
    raise MissingExtra("Slack", "slack") from error


@contextlib.contextmanager
def connected(
    ws: Workspace, model: ChatModel, app_token: str, bot_token: str, api: str, **options: Any
) -> Iterator[int]:
    """The bot answers in this block, whose end waits for the answers under way. Tells how many questions were left from
    before. `options`: those of `SlackBot`. Raises `ProviderError` when Slack refuses."""
    web = WebClient(bot_token, base_url=api.rstrip("/") + "/", timeout=30)
    web.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=5))
    with contextlib.ExitStack() as stack:
        questions = stack.enter_context(contextlib.closing(Questions(ws.root / FILE)))
        bot = SlackBot(model, web, questions, _score(ws), **options)
        stack.callback(bot.close)
        client = SocketModeClient(app_token, web_client=web, concurrency=1)
        stack.callback(client.close)
        client.socket_mode_request_listeners.append(bot.receive)
        try:
            left = bot.start()
            client.connect()
        except SlackApiError as error:
            raise _refused(error.response.get("error", "")) from error
        except OSError as error:
            raise ProviderError(f"Slack cannot be reached at {api}: {error}.", "Check the network.") from error
        yield left


def _score(ws: Workspace) -> Score:

    def store(trace: str, good: bool, author: str, said: Mapping[str, str]) -> None:
        give_feedback(
            ws,
            trace,
            good=good,
            correct_answer=said.get("answer") or None,
            comment=said.get("comment", ""),
            author=author,
        )

    return store


def _refused(error: str) -> ProviderError:
    hints = {
        "invalid_auth": "Check both tokens, and that the app is installed in the workspace.",
        "not_allowed_token_type": "The app's token begins with xapp-, the bot's with xoxb-.",
        "missing_scope": "`windlass slack --manifest` lists what the app needs; install it again after a change.",
    }
    return ProviderError(
        f"Slack refuses the connection: {error}.", hints.get(error, "See api.slack.com for what it means.")
    )
