"""What a query does when the server refuses what the client remembered."""

from __future__ import annotations

import pytest
from clients import LetterEncoder, at, opened
from rest_server import Fault, Server

from qdrant_embed import PermissionRefusal


def test_a_collection_replaced_by_one_with_other_vectors_is_read_again(
    kind: str, server: Server, tiny_name: str, tiny_e5_name: str
) -> None:
    with opened(kind, **at(server)) as writer, opened(kind, **at(server)) as reader:
        writer.set_model(tiny_name, vector_name="one")
        writer.add("demo", ["cat"], ids=[1])
        assert [hit.id for hit in reader.query("demo", "cat")] == [1]
        writer.delete_collection("demo")
        writer.set_model(tiny_e5_name, vector_name="other")
        writer.add("demo", ["dog"], ids=[2])
        server.fail_once("points/query", Fault(400))  # it has no vector of the first name
        assert [hit.id for hit in reader.query("demo", "cat")] == [2]


def test_a_request_refused_for_another_reason_is_not_repeated(kind: str, server: Server) -> None:
    with opened(kind, **at(server)) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"])
        client.query("demo", "cat")
        server.requests.clear()
        server.fail_once("points/query", Fault(403), times=2)
        with pytest.raises(PermissionRefusal):
            client.query("demo", "cat")
        assert [request.rpartition("/points/")[2] for request in server.requests] == [
            "query/batch",
            "GET /collections/demo",
        ]
