//! What can go wrong with a request, once for all dialects: each kind has one HTTP status and one number in it. How a
//! kind looks in a body is the dialect's own.

use gpuquota_core::Denied;
use gpuquota_core::explanation::Rule;
use gpuquota_core::id::TenantName;
use http::StatusCode;
use serde_json::Value;

use super::explain::ExplainBody;
use crate::auth::{Principal, Role};
use crate::service::LedgerError;

/// Kind of failure; the table below is the documentation of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The body is not the JSON that is taken.
    MalformedBody,
    /// A required field or parameter is not there.
    MissingField,
    /// A field or parameter has a value that is not taken.
    InvalidField,
    /// Two parts of the request contradict each other.
    Contradiction,
    /// A name in the path is not valid.
    InvalidPath,
    /// Something documented that this version does not do.
    Unsupported,
    /// No credential in this dialect's header.
    NoCredential,
    /// The credential does not count.
    InvalidCredential,
    /// The role is not enough.
    Forbidden,
    /// No such path.
    NoSuchPath,
    /// No such object, or not for this caller.
    NoSuchObject,
    /// The path does not know the method.
    MethodNotAllowed,
    /// The request did not arrive in time.
    Timeout,
    /// A limit below what is in use.
    BelowUse,
    /// A release of what is in use.
    InUse,
    /// An id that names something else.
    IdTaken,
    /// A node of another tenant.
    NodeBound,
    /// An idempotency key used for another request.
    OperationReused,
    /// More than a limit admits.
    OverLimit,
    /// A tenant to which nothing new is granted.
    Frozen,
    /// A lease that some limit, or the hardware, does not bear.
    NotGranted,
    /// A lease that is to end or has ended.
    LeaseOver,
    /// It changed after the caller read it.
    Changed,
    /// A body over the limit.
    TooLarge,
    /// Too many wrong credentials from this address.
    Throttled,
    /// More than the server takes now.
    Overloaded,
    /// Our fault.
    Internal,
    /// The ledger cannot be written to.
    Unavailable,
}

impl Kind {
    /// HTTP status and number within that status.
    #[must_use]
    pub(super) fn code(self) -> (StatusCode, u16) {
        match self {
            Self::MalformedBody => (StatusCode::BAD_REQUEST, 1),
            Self::MissingField => (StatusCode::BAD_REQUEST, 2),
            Self::InvalidField => (StatusCode::BAD_REQUEST, 3),
            Self::Contradiction => (StatusCode::BAD_REQUEST, 4),
            Self::InvalidPath => (StatusCode::BAD_REQUEST, 5),
            Self::Unsupported => (StatusCode::BAD_REQUEST, 6),
            Self::NoCredential => (StatusCode::UNAUTHORIZED, 1),
            Self::InvalidCredential => (StatusCode::UNAUTHORIZED, 2),
            Self::Forbidden => (StatusCode::FORBIDDEN, 1),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, 1),
            Self::NoSuchObject => (StatusCode::NOT_FOUND, 2),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, 1),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, 1),
            Self::BelowUse => (StatusCode::CONFLICT, 1),
            Self::InUse => (StatusCode::CONFLICT, 2),
            Self::IdTaken => (StatusCode::CONFLICT, 3),
            Self::NodeBound => (StatusCode::CONFLICT, 4),
            Self::OperationReused => (StatusCode::CONFLICT, 5),
            Self::OverLimit => (StatusCode::CONFLICT, 6),
            Self::Frozen => (StatusCode::CONFLICT, 7),
            Self::NotGranted => (StatusCode::CONFLICT, 8),
            Self::LeaseOver => (StatusCode::CONFLICT, 9),
            Self::Changed => (StatusCode::PRECONDITION_FAILED, 1),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 1),
            Self::Throttled => (StatusCode::TOO_MANY_REQUESTS, 1),
            Self::Overloaded => (StatusCode::TOO_MANY_REQUESTS, 2),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, 1),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, 1),
        }
    }

    /// Name in the native API's errors.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MalformedBody => "malformed_body",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::Contradiction => "contradiction",
            Self::InvalidPath => "invalid_path",
            Self::Unsupported => "unsupported",
            Self::NoCredential => "no_credential",
            Self::InvalidCredential => "invalid_credential",
            Self::Forbidden => "forbidden",
            Self::NoSuchPath => "no_such_path",
            Self::NoSuchObject => "no_such_object",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::BelowUse => "below_use",
            Self::InUse => "in_use",
            Self::IdTaken => "id_taken",
            Self::NodeBound => "node_bound",
            Self::OperationReused => "operation_reused",
            Self::OverLimit => "over_limit",
            Self::Frozen => "frozen",
            Self::NotGranted => "not_granted",
            Self::LeaseOver => "lease_over",
            Self::Changed => "changed",
            Self::TooLarge => "too_large",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// Seconds after which the same request may go through.
    #[must_use]
    pub(super) fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::Throttled | Self::Overloaded => Some(1),
            Self::Unavailable => Some(5),
            _ => None,
        }
    }
}

/// A request that is not granted, before it has a dialect's shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    /// What kind.
    pub kind: Kind,
    /// One line for a person: what is wrong and what to do.
    pub message: String,
    /// The ledger's explanation of a denial.
    pub explain: Option<Box<Value>>,
    /// The field or parameter that is to blame, where it is one.
    pub field: Option<Box<str>>,
    /// Whom the denied command was about, for the audit.
    pub about: Option<Box<TenantName>>,
}

impl Problem {
    /// A problem without an explanation of the ledger.
    #[must_use]
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            explain: None,
            field: None,
            about: None,
        }
    }

    /// Blames a field or parameter.
    #[must_use]
    pub(super) fn of_field(self, name: &str) -> Self {
        Self {
            field: Some(name.into()),
            ..self
        }
    }
}

impl Problem {
    /// What the ledger says, as this caller may hear it: only an administrator hears of others by name.
    #[must_use]
    pub(super) fn of_ledger(error: LedgerError, principal: &Principal) -> Self {
        let message = error.to_string();
        let denied = match error {
            LedgerError::Overloaded => return Self::new(Kind::Overloaded, message),
            LedgerError::Unavailable(_) | LedgerError::Unknown => {
                return Self::new(Kind::Unavailable, message);
            }
            LedgerError::Denied(denied) => denied,
        };
        let because = denied.because().cloned().or_else(|| denied.plainly());
        let explain = match (because, principal.role) {
            (Some(because), Role::Admin) => serde_json::to_value(ExplainBody::of(&because)),
            (Some(because), Role::TenantAdmin | Role::Viewer) => {
                serde_json::to_value(ExplainBody::of(&because.redacted()))
            }
            (None, _) => serde_json::to_value(&denied),
        };
        Self {
            kind: kind_of(&denied),
            message,
            explain: explain.ok().map(Box::new),
            field: None,
            about: None,
        }
    }

    /// Says whom the denied command was about.
    #[must_use]
    pub(super) fn about(self, tenant: Option<TenantName>) -> Self {
        Self {
            about: tenant.map(Box::new),
            ..self
        }
    }
}

fn kind_of(denied: &Denied) -> Kind {
    match denied {
        Denied::BelowUse { .. } => Kind::BelowUse,
        Denied::InUse { .. } => Kind::InUse,
        Denied::ReferenceTaken { .. } | Denied::JoinRefused => Kind::IdTaken,
        Denied::NodeBound { .. } => Kind::NodeBound,
        Denied::DedicatedWithoutNodes => Kind::MissingField,
        Denied::NodesWithoutDedicated => Kind::Contradiction,
        Denied::NoSuchQuota => Kind::NoSuchObject,
        Denied::OperationReused => Kind::OperationReused,
        Denied::NumberTaken { .. }
        | Denied::CodeTaken { .. }
        | Denied::ProjectTaken { .. }
        | Denied::ModelClash { .. } => Kind::IdTaken,
        Denied::TooMany { .. } => Kind::InvalidField,
        Denied::Unknown { .. } => Kind::NoSuchObject,
        Denied::CountedHere { .. } => Kind::Contradiction,
        Denied::HostLimit { .. } => Kind::OverLimit,
        Denied::LicencesExhausted { .. } | Denied::TooManySeats { .. } => Kind::OverLimit,
        Denied::LicencesInUse { .. } => Kind::BelowUse,
        Denied::ReferredTo { .. } => Kind::InUse,
        Denied::Frozen { .. } => Kind::Frozen,
        Denied::LeasedByOthers { .. } | Denied::NodeHeard { .. } | Denied::Leased { .. } => {
            Kind::InUse
        }
        Denied::Lease { because } if because.rule == Rule::Frozen => Kind::Frozen,
        Denied::Lease { .. } => Kind::NotGranted,
        Denied::LeaseOver { .. } => Kind::LeaseOver,
        Denied::Changed { .. } => Kind::Changed,
        // Answers to agents; no REST command draws them.
        Denied::Barred(_)
        | Denied::StaleSession
        | Denied::ReportGap { .. }
        | Denied::DeviceOfOtherNode { .. }
        | Denied::TooManyDevices { .. }
        | Denied::DeviceTwice { .. } => Kind::Internal,
    }
}
