"""A server that answers W&B's client as far as the aliases of artifacts go: it keeps who has which, and what it was
asked.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

CREATED = "2026-01-01T00:00:00Z"
PROJECT = {
    "__typename": "Project",
    "id": "project",
    "internalId": "project",
    "name": "posture",
    "entity": {"__typename": "Entity", "id": "lab", "name": "lab"},
}


class Aliases:
    """Of the versions of one artifact, lab/posture/NAME, in their order: an alias is one version's at a time."""

    def __init__(self, name: str, *versions: set[str]) -> None:
        self.collection = {"__typename": "ArtifactSequence", "id": "collection", "name": name, "project": PROJECT}
        self.versions = [{f"v{place}", *given} for place, given in enumerate(versions)]
        self.asked: list[str] = []

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
        self.asked.append(operation[1] if operation else "")
        if self.asked[-1] in ("Viewer", "GetDefaultEntity"):
            return {
                "viewer": {
                    "id": "me",
                    "entity": "lab",
                    "username": "me",
                    "email": "",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        if self.asked[-1] == "ArtifactMembershipByName":
            collection, _, alias = variables["name"].partition(":")
            holding = [
                place
                for place, held in enumerate(self.versions)
                if alias in held and collection == self.collection["name"]
            ]
            return {"project": {"artifactCollectionMembership": self._membership(holding[0]) if holding else None}}
        if self.asked[-1] == "AddAliases":
            given = {item["alias"] for item in variables["input"]["aliases"]}
            place = int(variables["input"]["artifactID"])
            self.versions = [
                held - given | (given if number == place else set()) for number, held in enumerate(self.versions)
            ]
            return {"result": {"success": True}}
        if self.asked[-1] == "UpdateArtifact":
            return {"result": {"artifact": self._artifact(int(variables["input"]["artifactID"]))}}
        return {}

    def _aliases(self, place: int) -> list[dict[str, Any]]:
        return [
            {"id": f"{place}{name}", "alias": name, "artifactCollection": self.collection}
            for name in sorted(self.versions[place])
        ]

    def _artifact(self, place: int) -> dict[str, Any]:
        return {
            "__typename": "Artifact",
            "id": str(place),
            "artifactSequence": self.collection,
            "versionIndex": place,
            "artifactType": {"name": "model"},
            "description": None,
            "metadata": "{}",
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED",
            "size": 7,
            "digest": f"{place:032x}",
            "commitHash": None,
            "fileCount": 1,
            "createdAt": CREATED,
            "updatedAt": None,
            "aliases": self._aliases(place),
        }

    def _membership(self, place: int) -> dict[str, Any]:
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": f"member{place}",
            "versionIndex": place,
            "createdAt": CREATED,
            "aliases": self._aliases(place),
            "artifactCollection": self.collection,
            "artifact": self._artifact(place),
        }


@contextlib.contextmanager
def wandb_server(aliases: Aliases) -> Iterator[str]:
    """Its address, for WANDB_BASE_URL."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = json.loads(body) if self.path == "/graphql" else {"query": ""}  # the client also sends how it fares
            data = aliases.answer(asked["query"], asked.get("variables") or {})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"data": data}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
