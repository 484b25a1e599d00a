"""What the providers' own hooks make of connections, without a cloud: credentials come through, and nothing is asked."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from spillway.airflow.clients import client_of
from spillway.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path


def connect(monkeypatch: pytest.MonkeyPatch, name: str, **facts: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(facts))


def test_a_connection_of_another_kind_has_no_client() -> None:
    assert client_of("spillway", "anything") is None


def test_an_aws_connection_becomes_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(
        monkeypatch,
        "cloud",
        conn_type="aws",
        login="AKIDEXAMPLE",
        password="secret",
        extra={"region_name": "eu-west-1"},
    )
    session: Any = client_of("aws", "cloud")
    assert session.region_name == "eu-west-1"
    assert session.get_credentials().access_key == "AKIDEXAMPLE"


def test_a_kubernetes_connection_becomes_an_api_client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        ),
        encoding="utf-8",
    )
    connect(
        monkeypatch, "cluster", conn_type="kubernetes", extra={"kube_config_path": str(kubeconfig)}
    )
    client: Any = client_of("kubernetes", "cluster")
    assert client.configuration.host == "http://127.0.0.1:1"


def test_a_google_connection_becomes_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "lab",
        "private_key": pem.decode(),
        "client_email": "spillway@lab.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:1/token",
    }
    connect(
        monkeypatch,
        "gcp",
        conn_type="google_cloud_platform",
        extra={"keyfile_dict": json.dumps(account)},
    )
    credentials, project = client_of("google_cloud_platform", "gcp")  # type: ignore[misc]  # a pair
    assert (credentials.service_account_email, project) == (account["client_email"], "lab")


def test_a_provider_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.amazon.aws.hooks.base_aws", None)
    with pytest.raises(SpecError, match=r"pip install 'spillway\[aws\]'"):
        client_of("aws", "cloud")
