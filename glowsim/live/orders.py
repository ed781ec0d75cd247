"""The body of an order to the admin's side: JSON, bounded in size and in time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from glowsim.live.shapes import read_as
from glowsim.live.web import Refusal, check_media

__all__ = ["order_of"]

_B = TypeVar("_B", bound=BaseModel)
_MOST_BODY_BYTES = 64 * 1024


async def order_of(http: HttpRequest, model: type[_B], *, within_s: float) -> _B:
    """Return a request's body as what it should be.

    A page from elsewhere cannot send this content type without being asked first, which nobody here answers to.

    Parameters
    ----------
    http
        The request.
    model
        What its body should be.
    within_s
        Longest time for the body to come in, in seconds.

    Raises
    ------
    HTTPException
        400, 408, 413 or 415: the body is none, late, too large, or not called JSON.
    """
    read = bytearray()
    try:
        check_media(http.headers.get("content-type"), http.headers.get("content-encoding"))
        async with asyncio.timeout(within_s):
            async for piece in http.stream():
                read += piece
                if len(read) > _MOST_BODY_BYTES:
                    raise HTTPException(
                        413, f"the body is larger than {_MOST_BODY_BYTES} bytes", {"Connection": "close"}
                    )
        return read_as(bytes(read), model)
    except TimeoutError:
        raise HTTPException(408, "the body did not come in time", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body broke off") from None
    except Refusal as error:
        raise HTTPException(error.status, error.message, error.headers) from None
