"""The vendor's own SDKs for workspace (document 001) and DeH (document 004).

Reads one JSON object: `url`, `ca` (path or null), `service` (`workspace` or `deh`), `project`, `access_key`, `secret_key`, and
optionally `token` (sent as X-Auth-Token by the client's own option for headers), `tenant`, `resource`. Writes what the client
made of the answer, or of the error.
"""

import json
import sys

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkdeh.v1 import DeHClient, ShowQuotaSetsRequest
from huaweicloudsdkworkspace.v2 import ShowQuotasRequest, WorkspaceClient


def client(kind, asked):
    config = HttpConfig(ssl_ca_cert=asked["ca"], timeout=(10, 20))
    credentials = BasicCredentials(asked["access_key"], asked["secret_key"], asked["project"])
    builder = kind.new_builder().with_http_config(config)
    return builder.with_credentials(credentials).with_endpoint(asked["url"]).build()


def invoker(asked):
    if asked["service"] == "workspace":
        return client(WorkspaceClient, asked).show_quotas_invoker(ShowQuotasRequest())
    request = ShowQuotaSetsRequest(tenant_id=asked["tenant"], resource=asked.get("resource"))
    return client(DeHClient, asked).show_quota_sets_invoker(request)


def main():
    asked = json.load(sys.stdin)
    call = invoker(asked)
    if asked.get("token"):
        call.add_header("X-Auth-Token", asked["token"])
    try:
        said = call.invoke().to_dict()
    except ServiceResponseException as error:
        said = {
            "status": error.status_code,
            "error_code": error.error_code,
            "error_msg": error.error_msg,
            "request_id": error.request_id,
        }
    json.dump(said, sys.stdout)


main()
