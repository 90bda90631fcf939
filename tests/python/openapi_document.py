"""Reads an OpenAPI document, says what is wrong with it and with its examples."""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator


def contents(value):
    """Every media type object with a schema, wherever it stands."""
    if isinstance(value, dict):
        if isinstance(value.get("content"), dict):
            yield from value["content"].values()
        for inner in value.values():
            yield from contents(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from contents(inner)


def examples(content):
    if "example" in content:
        yield content["example"]
    for example in content.get("examples", {}).values():
        yield example["value"]


document = json.load(sys.stdin)
wrong = [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()]
checked = 0
for content in contents({"paths": document["paths"], "components": document["components"]}):
    if "schema" not in content:
        continue
    schema = {**content["schema"], "components": document["components"]}
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for example in examples(content):
        checked += 1
        for error in validator.iter_errors(example):
            wrong.append(f"{json.dumps(example, ensure_ascii=False)}: {error.message}")
json.dump({"wrong": wrong, "examples": checked}, sys.stdout)
