"""
Environment variables that travel with a task: chosen by name, and encrypted, for Redis shows whatever it keeps.

AES-256 in GCM, with a key of the submission that comes of the cluster's secret; the taskid and the nonce of the job
are authenticated with it, so that they open in their own task only.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

from vscrapy.errors import ConfigError, NotVerified

#: Bytes of GCM's nonce, which stand before the ciphertext.
_IV_BYTES: Final = 12
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What is vscrapy's own is for nobody's project.
_OWN: Final = "VSCRAPY_"


def choose(named: Iterable[str], listed: Iterable[str], source: str, environ: Mapping[str, str]) -> dict[str, str]:
    """
    Take variables out of an environment.

    Args:
        named: Those of ``--env``, which must be there.
        listed: Those of a configuration file; what is not set here does not travel.
        source: That file, for messages.

    Raises:
        ConfigError: It is no name, one of vscrapy's own, or not set.
    """
    chosen: dict[str, str] = {}
    for names, origin in ((named, "--env"), (listed, source)):
        for name in names:
            if not _NAME.fullmatch(name):
                # Not as it is: a value may have been given with it.
                raise ConfigError(f"{origin} takes names of environment variables only, and their values from here")
            if name.startswith(_OWN):
                raise ConfigError(f"{origin} has {name}, which is vscrapy's own; it does not travel")
            if name in environ:
                chosen[name] = environ[name]
            elif origin == "--env":
                raise ConfigError(f"--env has {name}, which is not set here; export it, or leave it out")
    return chosen


def seal(variables: Mapping[str, str], key: bytes, taskid: int, nonce: str) -> str:
    """
    Encrypt variables for one submission of a task; '' when there are none.

    Args:
        key: The task's (:func:`vscrapy.secret.task_key`), which crawl processes do not have.
    """
    if not variables:
        return ""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    iv = os.urandom(_IV_BYTES)
    packed = json.dumps(dict(variables)).encode()
    return base64.b64encode(iv + AESGCM(_key(key, nonce)).encrypt(iv, packed, _bound(taskid, nonce))).decode()


def unseal(sealed: str, key: bytes, taskid: int, nonce: str) -> dict[str, str]:
    """
    Give the variables back.

    Raises:
        NotVerified: They were not sealed for this submission, with this cluster's secret.
    """
    if not sealed:
        return {}
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data = base64.b64decode(sealed, validate=True)
        packed = AESGCM(_key(key, nonce)).decrypt(data[:_IV_BYTES], data[_IV_BYTES:], _bound(taskid, nonce))
        return {str(name): str(value) for name, value in json.loads(packed).items()}
    except (InvalidTag, ValueError, AttributeError) as error:
        raise NotVerified(f"the environment variables of task {taskid} cannot be opened with this secret") from error


def _key(key: bytes, nonce: str) -> bytes:
    return hmac.digest(key, b"env:" + nonce.encode(), "sha256")


def _bound(taskid: int, nonce: str) -> bytes:
    return f"{taskid}:{nonce}".encode()
