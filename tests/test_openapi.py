"""The OpenAPI document: valid, complete, and of one mind with the door."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.trial.unittest import SynchronousTestCase

from fileexport import http_jobs
from fileexport.compression import ArchiveForm
from fileexport.disk.archive import Form
from fileexport.disk.schema import AttemptRow, JobRow, JobState, MessageRow, MessageState
from fileexport.disk.trees import TreeForm
from fileexport.errors import ERRORS, FULL_DISK
from fileexport.http_queries import CONFLICTS, FILE_FORMATS, JOB_FORMATS, TAR_FORMATS, TREE_FORMATS
from fileexport.job_views import listing, shown, shown_callback
from fileexport.meter import Progress
from fileexport.web.openapi import Formats, document, encoded
from fileexport.web.routes import OWN_NAMES, Open
from tests.test_docs import CHECKOUT, routes

Json = dict[str, Any]
FORMATS = Formats(JOB_FORMATS, TAR_FORMATS, FILE_FORMATS, TREE_FORMATS, CONFLICTS)
#: What a covering route is in the document; below `/-/` there is nothing else, and nothing to describe.
COVERING = {
    "/*": ("/", "/{path}"),
    "/-/files/*": ("/-/files/{path}",),
    "/-/static/*": ("/-/static/{name}",),
    "/-/share/*": ("/-/share/{key}",),
    **{f"/-/{verb}/*": (f"/-/{verb}/", f"/-/{verb}/{{path}}") for verb in ("new", "move", "remove", "pack")},
    "/-/*": (),
}


def documented() -> Json:
    """The document as a reader gets it."""
    found: Json = json.loads(encoded("1.2.3", "", FORMATS))
    return found


def operations(found: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method and operation of each."""
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def references(part: object) -> Iterator[str]:
    """Every reference in a part of the document."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def parameter(found: Json, path: str, name: str) -> Json:
    """The schema of a parameter of a path's GET."""
    [schema] = [p["schema"] for p in found["paths"][path]["get"]["parameters"] if p["name"] == name]
    assert isinstance(schema, dict)
    return schema


class DocumentTests(SynchronousTestCase):
    """The document by itself."""

    def setUp(self) -> None:
        self.document = documented()

    def test_valid(self) -> None:
        """It is OpenAPI 3.1 by the specification's own schema."""
        self.assertEqual(
            [error.message for error in OpenAPIV31SpecValidator(self.document).iter_errors()], []
        )

    def test_head(self) -> None:
        """It tells version and prefix; without a prefix the paths begin at the root."""
        self.assertEqual(self.document["info"]["version"], "1.2.3")
        self.assertEqual(self.document["servers"], [{"url": "/"}])
        self.assertEqual(document("1", "/files", FORMATS)["servers"], [{"url": "/files"}])

    def test_encoded_once(self) -> None:
        """It is made once, however often it is asked for."""
        self.assertIs(encoded("1.2.3", "", FORMATS), encoded("1.2.3", "", FORMATS))

    def test_references(self) -> None:
        """Every reference leads to a component, and every component is referred to."""
        found = set(references(self.document))
        components = self.document["components"]
        known = {
            f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in components[kind]
        }
        self.assertEqual(found, known)

    def test_links(self) -> None:
        """Every link names an operation that there is."""
        names = {operation["operationId"] for _, _, operation in operations(self.document)}
        for _, _, operation in operations(self.document):
            for response in operation["responses"].values():
                for link in response.get("links", {}).values():
                    self.assertIn(link["operationId"], names)

    def test_parameters(self) -> None:
        """A path names exactly its operations' path parameters, and their examples fit their schemas."""
        for path, method, operation in operations(self.document):
            names = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            self.assertEqual(names, re.findall(r"{(\w+)}", path), (method, path))
            for each in operation["parameters"]:
                OAS31Validator.check_schema(each["schema"])
                if "example" in each:
                    OAS31Validator(each["schema"]).validate(each["example"])

    def test_order_example(self) -> None:
        """The example of a job's order is one."""
        content = self.document["paths"]["/-/jobs"]["post"]["requestBody"]["content"]["application/json"]
        schema = {**content["schema"], "components": self.document["components"]}
        OAS31Validator(schema).validate(content["example"])

    def test_names(self) -> None:
        """The patterns of names and paths take what is one, and nothing else."""
        path, name = parameter(self.document, "/get", "dir"), parameter(self.document, "/get", "name")
        free = parameter(self.document, "/{path}", "path")
        for schema, good, bad in (
            (name, ("a", "..a", "...", " ", "a\n", "ä", "a" * 255), ("", ".", "..", "a/b", "\0", "a" * 256)),
            (
                path,
                ("", ".", "/", "a", "/a", "a/b/", "a/..b"),
                ("..", "a/../b", "a/.", "./a", "a" * 256, "\0"),
            ),
            (free, ("a", "list2", "favicon_ico"), OWN_NAMES),
        ):
            validator = OAS31Validator(schema)
            self.assertEqual([text for text in good if not validator.is_valid(text)], [])
            self.assertEqual([text for text in bad if validator.is_valid(text)], [])


class AgreementTests(SynchronousTestCase):
    """The document and the code."""

    def setUp(self) -> None:
        self.document = documented()

    def door(self) -> Iterator[tuple[str, str, object]]:
        """Each path of the document, its methods and the right that each needs, by the door's routes."""
        for route in routes(str(CHECKOUT)).all:
            for path in COVERING[route.path] if route.path.endswith("*") else (route.path,):
                for method, right in route.rights.items():
                    yield path, method.decode("ascii"), right

    def test_routes(self) -> None:
        """The document has every path and method that the door has, and no other."""
        self.assertEqual(
            sorted((path, method) for path, method, _ in operations(self.document)),
            sorted((path, method) for path, method, _ in self.door()),
        )

    def test_security(self) -> None:
        """What is open to all asks for nothing; a password that a browser repeats opens no changing GET."""
        rights = {(path, method): right for path, method, right in self.door()}
        for path, method, operation in operations(self.document):
            ways = {name for way in operation["security"] for name in way}
            acts = method == "GET" and (path, "HEAD") not in rights
            token = {"bearer"} if acts else {"bearer", "basic"}
            wanted = set() if rights[path, method] is Open.TO_ALL else token
            self.assertEqual(ways, wanted, (method, path))
            self.assertEqual("401" in operation["responses"], bool(ways), (method, path))

    def test_errors(self) -> None:
        """Every status of the table of errors has its answer, but for those of clients and gateways."""
        statuses = {row.http for row in (*ERRORS, FULL_DISK)} - {502, 504}
        self.assertLessEqual(
            {str(int(status)) for status in statuses}, set(self.document["components"]["responses"])
        )

    def test_forms(self) -> None:
        """The forms and states that it names are those of the code."""
        schemas = self.document["components"]["schemas"]
        self.assertEqual(parameter(self.document, "/get", "compress")["enum"], [form.value for form in Form])
        self.assertEqual(parameter(self.document, "/", "archive")["enum"], [form.value for form in TreeForm])
        self.assertEqual(parameter(self.document, "/tar", "format")["enum"], ["tar.gz", "tar.zst", "zip"])
        self.assertEqual(schemas["Format"]["enum"], [form.value for form in ArchiveForm])
        self.assertEqual(schemas["Job"]["properties"]["state"]["enum"], list(JobState))
        self.assertEqual(schemas["Callback"]["properties"]["state"]["enum"], list(MessageState))

    def test_order(self) -> None:
        """The order of a job has the fields that the door reads."""
        schema = self.document["components"]["schemas"]["NewJob"]
        self.assertEqual(list(schema["properties"]), list(http_jobs.NewJob.__struct_fields__))

    def test_job(self) -> None:
        """A job is as its schema says, with no other properties: by itself, and in a listing."""
        order = '{"source": "/a.sql", "target": "/a.tgz", "format": "tar.gz"}'
        result = {"path": "/a.tgz", "size": 5, "sha256": "0" * 64, "files": 1}
        result["skipped"] = {"count": 1, "entries": [{"name": "l", "why": "a link"}]}
        job = JobRow(
            id="id",
            owner="ann",
            state=JobState.DONE,
            order=order,
            target="1:2/a.tgz",
            created=1.0,
            ended=3.0,
            result=json.dumps(result),
        )
        message = MessageRow(
            "get", "http://h/", "", False, id="m", job="id", state=MessageState.DUE, attempts=1, due=5.0
        )
        callbacks = shown_callback([message], [AttemptRow("m", 4.0, 200, None, "thanks")])
        one = {**shown(job, Progress(1, 2, 0, 1, 0.5, 2.0), ""), "callbacks": callbacks}
        [listed] = json.loads(listing([(job, None)], ""))
        schemas = self.document["components"]["schemas"]
        for found in (one, listed):
            OAS31Validator({**schemas["Job"], "components": self.document["components"]}).validate(found)
        for found, name in (
            (one, "Job"),
            (one["progress"], "Progress"),
            (one["result"], "Result"),
            (callbacks[0], "Callback"),
            (callbacks[0]["attempts"][0], "Attempt"),
        ):
            self.assertEqual(set(found), set(schemas[name]["properties"]), name)

    def test_limits(self) -> None:
        """The limits that it names are those of the door."""
        limit = parameter(self.document, "/-/jobs", "limit")
        self.assertEqual((limit["maximum"], limit["default"]), (http_jobs.MAX_JOBS, http_jobs.SOME_JOBS))
        self.assertEqual(parameter(self.document, "/-/jobs/{id}", "wait")["maximum"], http_jobs.MAX_WAIT)
