"""Service accounts of a Google of one's own: their keys, and the tokens that they are given for them."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
LIFE: Final = timedelta(hours=1)


class ServiceAccounts:
    """What there is of them.

    Source: Google, "Using OAuth 2.0 for Server to Server Applications", HTTP/REST.
    """

    def __init__(self) -> None:
        self._public: dict[str, str] = {}
        self._tokens: dict[str, datetime] = {}

    def add(self, name: str, url: str, project: str = "our-project") -> dict[str, str]:
        """Make an account, and return the content of its key file; tokens are had at `url`."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._public[name] = public.decode()
        return {
            "type": "service_account",
            "project_id": project,
            "private_key_id": name,
            "private_key": private.decode(),
            "client_email": f"{name}@{project}.iam.gserviceaccount.com",
            "token_uri": url,
        }

    def remove(self, name: str) -> None:
        """Take the account's key away."""
        del self._public[name]

    def answer(self, body: str) -> tuple[int, str]:
        """Return status and body for a request for a token."""
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        library: Any = jwt  # it has no types
        try:
            assert asked["grant_type"] == _GRANT
            claims = library.decode(asked["assertion"], certs=self._public)
        except ValueError as error:
            said = {
                "error": "invalid_grant",
                "error_description": f"Invalid JWT Signature. {error}",
            }
            return 400, json.dumps(said)
        assert _SCOPE in claims["scope"]
        token = f"ya29.{secrets.token_urlsafe(16)}"
        self._tokens[token] = datetime.now(UTC) + LIFE
        seconds = int(LIFE.total_seconds())
        return 200, json.dumps(
            {"access_token": token, "expires_in": seconds, "token_type": "Bearer"}
        )

    def knows(self, token: str) -> bool:
        """Return whether the token is good now."""
        return self._tokens.get(token, datetime.min.replace(tzinfo=UTC)) > datetime.now(UTC)

    def forget_tokens(self) -> None:
        """Let all tokens be over."""
        self._tokens.clear()
