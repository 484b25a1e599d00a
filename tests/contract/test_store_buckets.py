"""The contract of stores, on servers that speak S3, Google Cloud Storage and Azure Blob Storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.testing.store_suite import StoreContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.testing.bucket_servers import BucketServer


class TestS3(StoreContract):
    @pytest.fixture
    def store_url(self, s3: BucketServer, fresh_folder: Callable[[BucketServer], str]) -> str:
        return fresh_folder(s3)


class TestGoogleCloudStorage(StoreContract):
    @pytest.fixture
    def store_url(self, gcs: BucketServer, fresh_folder: Callable[[BucketServer], str]) -> str:
        return fresh_folder(gcs)


class TestAzure(StoreContract):
    @pytest.fixture
    def store_url(self, azure: BucketServer, fresh_folder: Callable[[BucketServer], str]) -> str:
        return fresh_folder(azure)


class TestCeph(StoreContract):
    @pytest.fixture
    def store_url(self, ceph: BucketServer, fresh_folder: Callable[[BucketServer], str]) -> str:
        return fresh_folder(ceph)
