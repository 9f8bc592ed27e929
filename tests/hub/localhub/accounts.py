"""Who is calling, what the caller may see and change, and the errors that say so as the Hub says them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localhub.state import State

BAD_TOKEN = "Invalid credentials in Authorization header"


class HubError(Exception):
    """An answer that is an error; `code` is what the client chooses its exception by."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.more = more

    def answer(self) -> Response:
        headers = {"X-Error-Message": self.message}
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message, **self.more}, self.status, headers)


def state_of(request: Request) -> State:
    return request.app.state.hub


def base_url(request: Request) -> str:
    """Return the address by which the caller reached this server."""
    return f"http://{request.headers['host']}"


def caller(request: Request) -> dict[str, Any] | None:
    """Return the facts of the caller's token, or None for one who sends none."""
    header = request.headers.get("authorization", "")
    if not header:
        return None
    facts = state_of(request).token(header.removeprefix("Bearer "))
    if facts is None:
        raise HubError(401, BAD_TOKEN)
    if facts.get("expired"):
        raise HubError(401, 'User Access Token "local" is expired')
    return facts


def signed_in(request: Request) -> dict[str, Any]:
    facts = caller(request)
    if facts is None:
        raise HubError(401, "Invalid username or password.")
    return facts


def _in_scope(facts: dict[str, Any], thing: str) -> bool:
    """Tell whether a fine-grained token names this bucket or repository; other tokens name all."""
    return facts["role"] != "fineGrained" or thing in facts.get("only", ())


def check_read(request: Request, thing: str, *, private: bool) -> None:
    """Let pass who may read; to others, what is private does not exist."""
    facts = caller(request)
    if not private:
        return
    if facts is None:
        raise HubError(401, "Invalid username or password.", "RepoNotFound")
    if facts["user"] != thing.split("/", maxsplit=1)[0] or not _in_scope(facts, thing):
        raise HubError(404, "Repository not found", "RepoNotFound")


def check_write(request: Request, thing: str) -> dict[str, Any]:
    """Let pass who may change a bucket or a repository, or create it."""
    facts = signed_in(request)
    if facts["user"] != thing.split("/", maxsplit=1)[0]:
        raise HubError(403, f"You don't have the rights to change anything in the namespace of {thing}")
    if facts["role"] == "read" or not _in_scope(facts, thing):
        raise HubError(403, f"This token has no permission to write to {thing}")
    return facts


async def whoami(request: Request) -> Response:
    facts = signed_in(request)
    token = {"displayName": "local", "role": facts["role"], "createdAt": "2026-01-01T00:00:00.000Z"}
    if facts["role"] == "fineGrained":
        scopes = [{"entity": {"type": "bucket", "name": name}, "permissions": ["repo.write"]} for name in facts["only"]]
        token["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": scopes}
    answer = {
        "type": "user",
        "id": facts["user"],
        "name": facts["user"],
        "fullname": facts["user"],
        "isPro": facts.get("plan") == "pro",
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": token},
    }
    return JSONResponse(answer)


ROUTES = [Route("/api/whoami-v2", whoami, methods=["GET"])]
