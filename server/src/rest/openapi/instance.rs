//! The operation of document 002, with the document's own example.

use serde_json::json;

use super::operation::Operation;
use crate::rest::instance::Answer;
use crate::rest::names;
use crate::rest::status::Kind;

/// `GET /ai/openapi/v2/instance-service/resources`.
pub(in crate::rest) fn resources() -> Operation {
    let example = json!({
        "code": "0", "msg": "success",
        "data": {
            "id": null, "cpuNumber": 40, "mluLimits": 0, "dcuLimits": 0, "nvLimits": 0, "gpuNumber": 2,
            "memorySize": 31888, "resourceGroup": "TeslaM40", "userName": null, "nodeNumber": 1, "maxTime": "unlimited"
        }
    });
    Operation::new(
        "showInstanceResources",
        "Show what one node of a resource group has",
        "The group's largest node as its agent said, and the limits of cards on one node that hold for the caller; 0 \
         is none set. What is wrong with a request or its token is status 200 with a `code` other than \"0\".",
    )
    .required_query::<names::GroupName>("resourceGroup", "The group; upper and lower case differ.")
    .required_query::<names::AcceleratorWord>("acceleratorType", "The make of card, in any case.")
    .problem(Kind::Forbidden)
    .problem(Kind::Frozen)
    .answers::<Answer<'_>>(example)
}
