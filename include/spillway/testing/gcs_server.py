"""A Google Cloud Storage of one's own, in memory: what obstore uses of its XML API, right under race.

Objects with generations and preconditions on them, ranges, listings in pages, multipart uploads, and a bearer token that
is looked at. Written from "XML API reference" and "Request preconditions" of the Cloud Storage documentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from spillway.testing.http_server import QuietHandler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = 1000
"""Objects in one answer to a listing, as there."""

_WHEN: Final = "2026-01-01T00:00:00.000Z"
_WHEN_HTTP: Final = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One generation of an object."""

    data: bytes
    generation: int
    metadata: Mapping[str, str]

    @property
    def etag(self) -> str:
        """A name of the content."""
        return _etag(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """The answer is that it cannot be done."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        self.answer = Answer(status=status, body=_xml("Error", Code=code, Message=message))
        super().__init__(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked, taken apart."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class FakeGcs:
    """The buckets, and what the XML API does to them.

    Attributes:
        token: Bearer token that every request must carry.
    """

    def __init__(self, *, bucket: str, token: str) -> None:
        self.token = token
        self._buckets: dict[str, dict[str, Blob]] = {bucket: {}}
        self._uploads: dict[str, tuple[Mapping[str, str], dict[int, bytes]]] = {}
        self._generations = count(1)
        self._lock = Lock()

    def answer(self, request: Request) -> Answer:
        """Do what is asked; one request at a time, which is what makes preconditions atomic."""
        with self._lock:
            try:
                return self._answer(request)
            except Refusal as refusal:
                return refusal.answer

    def _answer(self, request: Request) -> Answer:
        blobs = self._admit(request)
        if "uploads" in request.query:
            return self._begin_upload(request)
        if "uploadId" in request.query:
            return self._go_on_with_upload(request, blobs)
        match request.method:
            case "PUT":
                return self._put(request, blobs, request.body, _metadata(request.headers))
            case "DELETE":
                return _delete(request, blobs)
            case _:
                return _get(request, blobs) if request.key else _list(request, blobs)

    def _admit(self, request: Request) -> dict[str, Blob]:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refusal(HTTPStatus.UNAUTHORIZED, "AuthenticationRequired", "Invalid credentials.")
        if request.bucket not in self._buckets:
            raise Refusal(
                HTTPStatus.NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist."
            )
        return self._buckets[request.bucket]

    def _put(
        self, request: Request, blobs: dict[str, Blob], data: bytes, metadata: Mapping[str, str]
    ) -> Answer:
        wanted = request.headers.get("x-goog-if-generation-match")
        there = blobs.get(request.key)
        if wanted is not None and int(wanted) != (there.generation if there else 0):
            raise Refusal(
                HTTPStatus.PRECONDITION_FAILED,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold.",
            )
        blob = Blob(data=data, generation=next(self._generations), metadata=metadata)
        blobs[request.key] = blob
        return Answer(headers=_headers(blob))

    def _begin_upload(self, request: Request) -> Answer:
        name = f"upload-{next(self._generations)}"
        self._uploads[name] = (_metadata(request.headers), {})
        body = _xml(
            "InitiateMultipartUploadResult",
            Bucket=request.bucket,
            Key=request.key,
            UploadId=name,
        )
        return Answer(body=body)

    def _go_on_with_upload(self, request: Request, blobs: dict[str, Blob]) -> Answer:
        name = request.query["uploadId"]
        if name not in self._uploads:
            raise Refusal(HTTPStatus.NOT_FOUND, "NoSuchUpload", "There is no such upload.")
        metadata, parts = self._uploads[name]
        if request.method == "PUT":
            parts[int(request.query["partNumber"])] = request.body
            return Answer(headers={"ETag": _etag(request.body)})
        del self._uploads[name]
        if request.method == "DELETE":
            return Answer(status=HTTPStatus.NO_CONTENT)
        whole = b"".join(parts[number] for number in sorted(parts))
        stored = self._put(request, blobs, whole, metadata)
        body = _xml(
            "CompleteMultipartUploadResult",
            Bucket=request.bucket,
            Key=request.key,
            ETag=stored.headers["ETag"],
        )
        return Answer(body=body, headers=stored.headers)


@contextmanager
def gcs_server(fake: FakeGcs) -> Iterator[str]:
    """Serve `fake` on a free port of this machine; yield its URL."""

    class Handler(_Handler):
        gcs = fake

    with serving(Handler) as url:
        yield url


class _Handler(QuietHandler):
    gcs: FakeGcs

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        request = Request(
            method=self.command,
            bucket=unquote(bucket),
            key=unquote(key),
            query={
                name: values[0]
                for name, values in parse_qs(parts.query, keep_blank_values=True).items()
            },
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.body(),
        )
        answer = self.gcs.answer(request)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the names that the base class calls


def _delete(request: Request, blobs: dict[str, Blob]) -> Answer:
    if blobs.pop(request.key, None) is None:
        raise _no_such_key()
    return Answer(status=HTTPStatus.NO_CONTENT)


def _get(request: Request, blobs: Mapping[str, Blob]) -> Answer:
    blob = blobs.get(request.key)
    if blob is None:
        raise _no_such_key()
    if request.headers.get("if-match", blob.etag) != blob.etag:
        raise Refusal(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed", "It is another one.")
    asked = request.headers.get("range")
    if asked is None:
        return Answer(body=blob.data, headers=_headers(blob))
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(blob.data)), len(blob.data) - 1)
    if start >= len(blob.data):
        raise Refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange", "Out of range.")
    return Answer(
        status=HTTPStatus.PARTIAL_CONTENT,
        body=blob.data[start : end + 1],
        headers={**_headers(blob), "Content-Range": f"bytes {start}-{end}/{len(blob.data)}"},
    )


def _list(request: Request, blobs: Mapping[str, Blob]) -> Answer:
    prefix = request.query.get("prefix", "")
    after = request.query.get("continuation-token", request.query.get("start-after", ""))
    keys = sorted(key for key in blobs if key.startswith(prefix) and key > after)
    most = min(int(request.query.get("max-keys", PAGE)), PAGE)
    page = keys[:most]
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><Generation>{blobs[key].generation}</Generation>"
        f"<LastModified>{_WHEN}</LastModified><ETag>{blobs[key].etag}</ETag>"
        f"<Size>{len(blobs[key].data)}</Size></Contents>"
        for key in page
    )
    more = (
        f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        if len(keys) > most
        else ""
    )
    body = f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{contents}</ListBucketResult>"
    return Answer(body=body.encode())


def _metadata(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("x-goog-meta-")}


def _headers(blob: Blob) -> Mapping[str, str]:
    return {
        "ETag": blob.etag,
        "x-goog-generation": str(blob.generation),
        "Last-Modified": _WHEN_HTTP,
        **blob.metadata,
    }


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _no_such_key() -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "NoSuchKey", "The specified key does not exist.")


def _xml(root: str, **children: str) -> bytes:
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in children.items())
    return f"<?xml version='1.0' encoding='UTF-8'?><{root}>{inner}</{root}>".encode()
