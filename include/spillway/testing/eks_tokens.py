"""How EKS takes a token: as the authenticator that it runs does, but for asking STS, which is asked of the one account here."""

from __future__ import annotations

import base64
import hmac
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX: Final = "k8s-aws-v1."
_LIFE: Final = timedelta(minutes=15)
_HEADER: Final = "x-k8s-aws-id"
_WHITELIST: Final = frozenset(
    {
        "Action",
        "Version",
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Security-Token",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
    }
)


def why_refused(
    token: str, *, cluster: str, keys: Mapping[str, str], region: str, now: datetime
) -> str:
    """Return why the cluster does not take the token; empty when it does.

    Source: github.com/kubernetes-sigs/aws-iam-authenticator, pkg/token.

    Args:
        token: What was sent.
        cluster: Its name at EKS.
        keys: Secrets of the account's access keys.
        region: Whose STS the cluster asks.
        now: When it came.
    """
    text = token.removeprefix(_PREFIX)
    if text == token or "=" in text:
        return "it is none of EKS's"
    url = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    parts, query = urlsplit(url), defaultdict(str, parse_qsl(urlsplit(url).query))
    signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    key, _, own_region, service, _ = query["X-Amz-Credential"].split("/")
    sts = ("https", f"sts.{region}.amazonaws.com", "/")
    wrong = {
        "it is no question to STS": (parts.scheme, parts.netloc, parts.path) != sts,
        "it asks too much": bool(query.keys() - _WHITELIST),
        "it asks something else": query["Action"] != "GetCallerIdentity",
        "it is for any cluster": _HEADER not in query["X-Amz-SignedHeaders"].split(";"),
        "it is too old": not signed_at - _LIFE < now < signed_at + _LIFE,
        "it is of another region": (own_region, service) != (region, "sts"),
        "nobody has this key": key not in keys,
    }
    found = [why for why, is_so in wrong.items() if is_so]
    if found:
        return f"{', '.join(found)}: {url}"
    credentials = Credentials(key, keys[key], query.get("X-Amz-Security-Token"))
    right = _signature(url, query, credentials, region, cluster)
    return "" if hmac.compare_digest(right, query["X-Amz-Signature"]) else "its signature is wrong"


def _signature(
    url: str, query: dict[str, str], credentials: Credentials, region: str, cluster: str
) -> str:
    """Return the signature that STS makes of the question, with the header that the cluster adds to it."""
    signed = {name: value for name, value in query.items() if name != "X-Amz-Signature"}
    request: Any = AWSRequest(
        "GET", f"{url.partition('?')[0]}?{urlencode(signed)}", headers={_HEADER: cluster}
    )
    request.context["timestamp"] = query["X-Amz-Date"]
    auth: Any = SigV4QueryAuth(credentials, "sts", region)
    return str(
        auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    )
