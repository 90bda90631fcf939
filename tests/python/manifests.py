"""Reads manifests and compose files, {path: text}, and says what in them refers to something that is not there."""

import json
import sys

import yaml


def pod_faults(kind, spec):
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    mounted = set()
    for container in spec.get("initContainers", []) + spec["containers"]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{kind}: {container['name']} may gain privileges"
        mounted |= {mount["name"] for mount in container.get("volumeMounts", [])}
    if volumes != mounted:
        yield f"{kind}: volumes {volumes} and mounts {mounted}"
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{kind}: a token of the cluster that it does not need"


def manifest_faults(documents):
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    configs = {d["metadata"]["name"] for d in documents if d["kind"] == "ConfigMap"}
    templates = [d["spec"] for d in documents if d["kind"] in ("DaemonSet", "Deployment")]
    labels = [spec["template"]["metadata"]["labels"] for spec in templates]
    ports = {p["name"] for s in templates for c in s["template"]["spec"]["containers"] for p in c.get("ports", [])}
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        spec = document.get("spec", {})
        if "template" in spec:
            pod = spec["template"]["spec"]
            if spec["selector"]["matchLabels"] != spec["template"]["metadata"]["labels"]:
                yield f"{name}: selects other pods"
            if pod["serviceAccountName"] not in accounts:
                yield f"{name}: no such account"
            for volume in pod["volumes"]:
                if "configMap" in volume and volume["configMap"]["name"] not in configs:
                    yield f"{name}: no such ConfigMap"
            yield from pod_faults(name, pod)
        if document["kind"] == "Service":
            if spec["selector"] not in labels or not {p["targetPort"] for p in spec["ports"]} <= ports:
                yield f"{name}: selects no pod or port"


def compose_faults(compose):
    for name, service in compose["services"].items():
        known = {key: set(compose[key]) for key in ("networks", "secrets", "volumes")}
        secrets = {s if isinstance(s, str) else s["source"] for s in service.get("secrets", [])}
        volumes = {v.split(":")[0] for v in service.get("volumes", []) if not v.startswith(".")}
        used = {"networks": set(service.get("networks", [])), "secrets": secrets, "volumes": volumes}
        for key, names in used.items():
            if not names <= known[key]:
                yield f"{name}: {key} {names - known[key]}"


found = {}
for path, text in json.load(sys.stdin).items():
    documents = [document for document in yaml.safe_load_all(text) if document]
    if "services" in documents[0]:
        found[path] = list(compose_faults(documents[0]))
    else:
        found[path] = list(manifest_faults(documents))
    found[path] += [] if documents else ["empty"]
json.dump({path: faults for path, faults in found.items() if faults}, sys.stdout)
