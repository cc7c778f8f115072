"""S3 as a place where a store can lie, by ``s3fs``.

Endpoint, region and credentials are those of the standard variables and files (``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, a role). The pointer is replaced by a conditional
write (``If-Match`` on the ETag, ``If-None-Match: *`` on the first): the server has to know these, as AWS does since
November 2024, MinIO and Ceph do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detector.adapters.places import Tagged
from schemas.errors import AccessError, ModelError, ResidualError, SettingsError, StoreUnavailable

#: Seconds: to connect, to wait for bytes; tries after the first. At worst a look takes a minute, far under a watchdog.
CONNECT_S, READ_S, TRIES = 5, 15, 2

#: The condition was not met, or was met by somebody else at the same time.
LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")

REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403")


class Bucket:
    """A prefix of a bucket."""

    def __init__(self, url: str) -> None:
        try:
            from s3fs import S3FileSystem
        except ImportError:
            raise SettingsError(
                f"the store {url} needs the package s3fs: install it, as with pip install 'residual[s3]'"
            ) from None
        self._url = url.rstrip("/")
        self._bucket, _, self._prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not self._bucket:
            raise SettingsError(f"the store {url} names no bucket: write s3://BUCKET/PREFIX")
        self._s3 = S3FileSystem(
            config_kwargs={
                "connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"max_attempts": TRIES},
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )  # fmt: skip
        self._s3.retries = TRIES

    def __str__(self) -> str:
        return self._url

    def names(self, path: str) -> list[str]:
        """See ``Place``."""
        prefix = self._key(path) + "/" if path else (self._prefix + "/" if self._prefix else "")
        names: set[str] = set()
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, Delimiter="/", **token)
            names |= {entry["Prefix"][len(prefix) :].rstrip("/") for entry in page.get("CommonPrefixes", ())}
            names |= {entry["Key"][len(prefix) :] for entry in page.get("Contents", ())}
            if not page.get("IsTruncated"):
                return sorted(names - {""})
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, path: str) -> Tagged | None:
        """See ``Place``."""
        with self._translated():
            try:
                tag, before = self._etag(path), ""
                while tag != before:  # else somebody has replaced it meanwhile
                    data, before = self._s3.cat_file(f"{self._bucket}/{self._key(path)}"), tag
                    tag = self._etag(path)
            except FileNotFoundError:  # the answer to HEAD does not say whether it is the bucket that is missing
                self._call("list_objects_v2", Prefix=self._key(path), MaxKeys=1)
                return None
        return Tagged(data, tag)

    def _etag(self, path: str) -> str:
        return str(self._s3.call_s3("head_object", Bucket=self._bucket, Key=self._key(path))["ETag"])

    def add(self, path: str, files: Mapping[str, Path], last: str) -> None:
        """See ``Place``."""
        if last in self.names(path):
            return
        for name in sorted(files, key=lambda name: name == last):
            with self._translated():
                self._s3.put_file(str(files[name]), f"{self._bucket}/{self._key(path)}/{name}")

    def swap(self, path: str, data: bytes, tag: str | None) -> bool:
        """See ``Place``."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self._call("put_object", Key=self._key(path), Body=data, **condition)
        except _LostError:
            # a try whose answer was lost on the way may have been ours
            now = self.read(path)
            return now is not None and now.data == data
        return True

    def remove(self, path: str, last: str) -> None:
        """See ``Place``."""
        for name in sorted(self.names(path), key=lambda name: name != last):
            self._call("delete_object", Key=f"{self._key(path)}/{name}")

    def sweep(self, path: str) -> None:
        """See ``Place``; what is not whole here is overwritten or removed as a version."""

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """See ``Place``."""
        with tempfile.TemporaryDirectory(prefix="residual-model-") as folder:
            for name in self.names(path):
                with self._translated():
                    self._s3.get_file(f"{self._bucket}/{self._key(path)}/{name}", str(Path(folder) / name))
            yield Path(folder)

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        with self._translated():
            found: dict[str, Any] = self._s3.call_s3(method, Bucket=self._bucket, **arguments)
            return found

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What s3fs and botocore raise, as errors of ours."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise AccessError(
                f"the store {self}: no credentials: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
            ) from error
        except (OSError, ClientError) as error:
            raise self._of_code(_code(error), error) from error
        except (BotoCoreError, TimeoutError) as error:
            raise StoreUnavailable(
                f"the store {self} is out of reach ({error}): look after AWS_ENDPOINT_URL"
            ) from error

    def _of_code(self, code: str, error: Exception) -> ResidualError:
        if code in LOST:
            return _LostError(str(error))
        if code in REFUSED or isinstance(error, PermissionError):
            return AccessError(f"the store {self} refuses ({code or error}): look after the credentials and the rights")
        if code in ("NoSuchBucket", "InvalidBucketName"):
            return ModelError(f"there is no bucket {self._bucket}: make it, or name another --store")
        if isinstance(error, FileNotFoundError):
            return ModelError(f"the store {self}: a file of it is missing ({error})")
        return StoreUnavailable(f"the store {self} cannot be reached ({code or error}): try again")


class _LostError(ResidualError):
    """Never leaves this module: somebody else was first."""


def _code(error: BaseException | None) -> str:
    """What the server said; empty where it did not."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
