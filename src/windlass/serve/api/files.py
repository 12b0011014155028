"""/v1/files: what batches read and write. A key sees its own files; one with the scope `admin` sees all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from windlass.serve.api.context import Context
from windlass.serve.api.fields import Json
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, obj
from windlass.serve.api.paging import PARAMETERS, page, page_of
from windlass.serve.errors import BadField, HttpError
from windlass.serve.filestore import FileStore, StoredFile

PURPOSES = ("batch",)


def operations(context: Context, files: FileStore) -> list[Operation]:
    async def upload(caller: Caller, fields: Json) -> Json:
        assert caller.request is not None
        form = await _form(caller.request, context)
        try:
            content, purpose = form.get("file"), form.get("purpose")
            if purpose not in PURPOSES:
                raise BadField("purpose", f"'purpose' must be one of: {', '.join(PURPOSES)}.")
            if not isinstance(content, UploadFile):
                raise BadField("file", "'file' is missing.", "Send it as a file of a multipart form.", code="missing")
            for name in form:
                if name not in ("file", "purpose"):
                    shown = name[:200]
                    raise BadField(shown, f"'{shown}' is not a field this server knows.", code="unknown_field")
            owner = None if caller.key is None else caller.key.id
            name = (content.filename or "file.jsonl")[:200]
            return file_json(await asyncio.to_thread(files.add, content.file, name, str(purpose), owner))
        finally:
            await form.close()

    async def list_files(caller: Caller, fields: Json) -> Json:
        found = [one for one in await asyncio.to_thread(files.all) if sees(caller, one.owner)]
        return page(caller, found, lambda one: one.id, file_json)

    async def show(caller: Caller, fields: Json) -> Json:
        return file_json(find_file(files, caller))

    async def content(caller: Caller, fields: Json) -> Response:
        found = find_file(files, caller)
        return FileResponse(files.place(found.id), media_type="application/octet-stream")

    async def delete(caller: Caller, fields: Json) -> Json:
        found = find_file(files, caller)
        await asyncio.to_thread(files.remove, found)
        return {"id": found.id, "object": "file", "deleted": True}

    which = {"name": "file", "in": "path", "required": True, "schema": TEXT_}
    gone = obj({"id": TEXT_, "object": {"const": "file"}, "deleted": {"const": True}})
    return [
        Operation(
            method="POST", path="/v1/files", summary="Uploads a file for a batch", scope="batch", answer=FILE,
            handle=upload, form=FORM,
        ),
        Operation(
            method="GET", path="/v1/files", summary="Lists files", scope="batch", answer=page_of(FILE),
            handle=list_files, parameters=PARAMETERS,
        ),
        Operation(
            method="GET", path="/v1/files/{file}", summary="Shows a file", scope="batch", answer=FILE, handle=show,
            parameters=[which], errors=(404,),
        ),
        Operation(
            method="GET", path="/v1/files/{file}/content", summary="What a file holds", scope="batch", answer=TEXT_,
            handle=content, parameters=[which], errors=(404,), media_type="application/octet-stream",
        ),
        Operation(
            method="DELETE", path="/v1/files/{file}", summary="Removes a file", scope="batch", answer=gone,
            handle=delete, parameters=[which], errors=(404,),
        ),
    ]  # fmt: skip


def sees(caller: Caller, owner: str | None) -> bool:
    return caller.key is None or "admin" in caller.key.scopes or caller.key.id == owner


def find_file(files: FileStore, caller: Caller, id: str | None = None, *, param: str = "file") -> StoredFile:
    """The file of the path, or of `id`. Raises `HttpError` (404), also for a file of another key."""
    if id is None:
        assert caller.request is not None
        id = str(caller.request.path_params["file"])
    found = files.get(id)
    if found is None or not sees(caller, found.owner):
        raise HttpError(404, f"There is no file '{id[:100]}'.", code="not_found", param=param)
    return found


async def _form(request: Request, context: Context) -> FormData:
    """The parts of a multipart body; its file goes to the disk as it arrives."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HttpError(415, f"The body is of type '{kind[:100]}'.", "Send the file as multipart/form-data.")
    limit, seen = context.limits.file_bytes, 0

    async def counted() -> AsyncGenerator[bytes]:
        nonlocal seen
        chunks = request.stream()
        while True:
            try:
                async with asyncio.timeout(context.limits.body_seconds):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                wait = f"{context.limits.body_seconds:g} s"
                raise HttpError(408, f"Nothing arrived for {wait}.", headers={"Connection": "close"}) from None
            seen += len(chunk)
            if seen > limit:
                raise HttpError(413, f"The file is larger than {limit} bytes.", headers={"Connection": "close"})
            yield chunk

    parser = MultiPartParser(request.headers, counted(), max_files=1, max_fields=8)
    try:
        return await parser.parse()
    except HttpError:
        for file in parser._files_to_close_on_error:  # as it does itself where the form is at fault
            file.close()
        raise
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        raise BadField(None, f"The body is no multipart form ({error}).") from error


def file_json(file: StoredFile) -> Json:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


FILE = obj(
    {
        "id": TEXT_,
        "object": {"const": "file"},
        "bytes": COUNT,
        "created_at": COUNT,
        "filename": TEXT_,
        "purpose": TEXT_,
        "status": TEXT_,
    }
)
FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
    },
    "required": ["file", "purpose"],
    "additionalProperties": False,
}
