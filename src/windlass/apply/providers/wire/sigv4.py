"""AWS Signature Version 4: a request shows who sends it without sending the secret key.

Source: "AWS Signature Version 4 for API requests" (AWS General Reference). Tests compare with botocore's signatures for
the same time and keys.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

from windlass.apply.providers.wire.keys import sendable
from windlass.core.config import secret
from windlass.core.errors import ConfigError

_ALGORITHM = "AWS4-HMAC-SHA256"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SigV4:
    """An `Auth` with keys from the environment, read at each call as `ApiKey` does."""

    service: str
    region: str
    identity: str = "AWS_ACCESS_KEY_ID"
    secret_key: str = "AWS_SECRET_ACCESS_KEY"
    session: str = "AWS_SESSION_TOKEN"
    """Of temporary keys; may be unset."""
    now: Callable[[], datetime] = _now

    def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """Raises `ConfigError` naming the variable that is not set: there is no unsigned way in."""
        identity, key, session = secret(self.identity), secret(self.secret_key), secret(self.session)
        if identity is None or key is None:
            raise ConfigError(f"{self.missing} is not set.", f"Set the environment variable {self.missing}.")
        sendable(identity, f"The key in {self.identity}"), sendable(session or "", f"The token in {self.session}")
        stamp = self.now().strftime("%Y%m%dT%H%M%SZ")
        added = {"x-amz-date": stamp} | ({"x-amz-security-token": session} if session else {})
        signed = {"host": _host(url), **added} | ({"content-type": "application/json"} if body else {})
        names = ";".join(sorted(signed))
        scope = f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"
        canonical = canonical_request(method, url, signed, body)
        text = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signature = _mac(signing_key(key, scope), text).hex()
        proof = f"{_ALGORITHM} Credential={identity}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {**added, "Authorization": proof}

    def secrets(self) -> Sequence[str]:
        return [value for name in (self.secret_key, self.session) if (value := secret(name))]

    @property
    def named(self) -> str:
        return f"{self.identity} and {self.secret_key}"

    @property
    def missing(self) -> str | None:
        return next((name for name in (self.identity, self.secret_key) if secret(name) is None), None)


def canonical_request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> str:
    """What is signed, in the one form that both sides can rebuild. `headers` have names in small letters."""
    parts = urlsplit(url)
    # Every service but S3 encodes the path once more than it is sent.
    path = quote(parts.path or "/", safe="/-_.~")
    pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
    query = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    return "\n".join(
        (
            method,
            path,
            "&".join(f"{name}={value}" for name, value in query),
            *lines,
            "",
            ";".join(sorted(headers)),
            hashlib.sha256(body).hexdigest(),
        )
    )


def signing_key(key: str, scope: str) -> bytes:
    """The key of one day, region and service (`scope`): whoever learns it cannot make those of another."""
    made = f"AWS4{key}".encode()
    for part in scope.split("/"):
        made = _mac(made, part)
    return made


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="-_.~")


def _host(url: str) -> str:
    """As HTTP clients send it: without the port that the scheme implies."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"
