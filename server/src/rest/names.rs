//! Schemas of the values that bodies, parameters and answers share, each exactly as strict as the parser of its name.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::{PartialSchema, ToSchema};

use crate::rest::enforcement_schema;
use crate::rest::json::LARGEST_COUNT;
use crate::rest::native::page;

// White space and control characters are spelt out: `\s` is not the same set in every engine.
const EDGE: &str =
    r"[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]";
const INNER: &str = r"[^\u0000-\u001f\u007f-\u009f]";
const EDGE_NO_STAR: &str =
    r"[^\u0000-\u0020*\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]";
const INNER_NO_STAR: &str = r"[^\u0000-\u001f*\u007f-\u009f]";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)+) => {
        $(
            $(#[$doc])*
            pub(in crate::rest) enum $name {}

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    RefOr::from($schema)
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )+
    };
}

names! {
    /// A tenant's slug.
    TenantName = slug(255, "A-Za-z0-9._@-", "A tenant's slug.");
    /// A project of a tenant.
    ProjectId = slug(255, "A-Za-z0-9._@-", "A project of a tenant, as portals and clouds name it.");
    /// A GPU host.
    NodeName = text(63)
        .pattern(Some(r"^(?!.*\.\.)[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$"))
        .description(Some("A GPU host, as its certificate names it."));
    /// Where devices stand.
    Region = plain(64, "Where devices stand; free text of the operator.");
    /// What quotas call a kind of device.
    GpuModel = plain(253, "What quotas call a kind of device, e.g. `nvidia.com/gpu`; free text.");
    /// A pool of alike nodes.
    GroupName = plain(128, "A pool of alike nodes, e.g. `TeslaM40`.");
    /// A site beside the central one.
    SiteId = slug(64, "A-Za-z0-9._-", "A site beside the central one.");
    /// A site as document 001 writes it.
    WrittenSite = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Integer]))
        .description(Some("The site; text, or a number where the server is configured so."));
    /// A kind of dedicated host.
    HostResourceName = slug(64, "A-Za-z0-9._-", "A kind of dedicated host, e.g. `c4`.");
    /// Kind of a project's resource.
    ResourceKind = slug(64, "A-Za-z0-9_", "Kind of a project's resource; upper and lower case differ.");
    /// A short technical name.
    Code = slug(64, "A-Za-z0-9._@-", "A short technical name, e.g. `DEMO_COMPANY`.");
    /// A name for people.
    DisplayName = plain(255, "A name for people.");
    /// What NVML calls a product.
    HardwareName = plain(255, "What NVML calls a product or a vGPU type, e.g. `Tesla M40`.");
    /// vGPU types of one product.
    VgpuTypes = text(255)
        .pattern(Some(format!(
            r"^(?:\*|{e}(?:{i}*{e})?|\*{i}*{e}|{e}{i}*\*)$", e = EDGE_NO_STAR, i = INNER_NO_STAR
        )))
        .description(Some("A vGPU type as NVML names it; one `*` at its beginning or end stands for any text."));
    /// A moment of the past.
    Moment = text(40).description(Some(
        "Number of a journal row, or an RFC 3339 time: the answer is as it was after that row, or at that time.",
    ));
    /// A SHA-256.
    Sha256 = text(64)
        .pattern(Some("^[0-9a-f]{64}$"))
        .description(Some("A SHA-256, 64 lower-case hexadecimal digits."));
    /// Serial number of a certificate.
    CertificateSerial = text(59)
        .pattern(Some("^[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){0,19}$"))
        .description(Some("Serial number of a certificate, hexadecimal, as the log and the audit show it."));
    /// How long a join token counts, seconds.
    JoinTokenTtl = integer(1, 3600);
    /// A GPU.
    GpuUuid = slug(96, "A-Za-z0-9-", "UUID of a GPU, e.g. `GPU-8a56a4bc-6b3f-4e0f-9a3d-3f6a3a1c0b11`.");
    /// The address of a device.
    DeviceKey = text(120)
        .pattern(Some("^(?:[A-Za-z0-9-]{1,96}(?:/[0-9]{1,9}/[0-9]{1,9})?|vgpu:[A-Za-z0-9-]{1,96})$"))
        .description(Some(
        "UUID of a full GPU, `UUID/GI/CI` of a MIG instance, or `vgpu:UUID` of a vGPU instance.",
    ));
    /// A count.
    Count = integer(0, i64::from(LARGEST_COUNT)).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
    /// A number that names something.
    Number = integer(1, i64::from(LARGEST_COUNT)).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
    /// A limit.
    Limit = integer(-1, i64::from(LARGEST_COUNT))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .description(Some("A limit; -1 is unlimited."));
    /// Bytes.
    Bytes = integer(0, i64::MAX).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some("Bytes."));
    /// How long a seat is checked out.
    SeatSeconds = integer(1, 30 * 24 * 60 * 60).description(Some("Seconds from now; at most 30 days."));
    /// Our number of a lease.
    LeaseId = integer(1, 999_999_999_999_999_999);
    /// Our number of a quota.
    QuotaId = integer(0, 999_999_999_999_999_999);
    /// Where the page before ended.
    After = integer(0, 999_999_999_999_999_999)
        .description(Some("The number of what was shown last."));
    /// Devices of a lease.
    LeaseCount = integer(1, i64::from(gpuquota_core::lease::MOST_LEASED)).description(Some("Devices."));
    /// How long a lease lasts.
    LeaseSeconds = integer(1, 365 * 24 * 60 * 60).description(Some("Seconds from now; at most 365 days."));
    /// How much a page shows.
    PageLimit = integer(1, i64::from(page::LARGEST_PAGE)).default(Some(page::USUAL_PAGE.into()));
    /// Where a lease stands.
    LeaseState = words(
        &["active", "releasing", "ended"],
        "It counts; it is to end, and is charged until its devices are seen free; or it is charged no more.",
    );
    /// Whether a lease names its devices.
    LeasePlacement = words(
        &["devices", "count_only"],
        "Devices are chosen and are the tenant's alone; or a number only, checked against limits and not against what is there.",
    );
    /// Why a lease is to end.
    EndReason = words(
        &["released", "forced", "expired", "drained", "node_retired", "device_moved"],
        "Given back, taken away by an admin, its time ran out, its quota became too small and the notice ran out, its \
         node was retired, or its device was taken from its node.",
    );
    /// Why a device was never seen free.
    UnconfirmedReason = words(
        &["still_held", "never_confirmed", "unreadable", "forced", "node_retired", "device_moved"],
        "At the deadline somebody still held it, it was free but no reading had shown so after the end began, it could not be read, nobody waited for it, its node was \
         retired, or it was taken from its node.",
    );
    /// Kind of device.
    DeviceKind = words(&["gpu", "mig", "vgpu"], "A full GPU, a MIG instance or a vGPU instance.");
    /// The caller's own words.
    Labels = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(Schema::from(slug(63, "A-Za-z0-9._/-", "Name of a label, e.g. `job`."))))
        .additional_properties(Some(plain(255, "Text of a label.")))
        .max_properties(Some(gpuquota_core::lease::MOST_LABELS))
        .description(Some("The caller's own words by name."));
    /// Whether leases are needed.
    LeaseMode = words(
        &["optional", "required"],
        "What runs within a quota is fine without a lease; or it is a squatter.",
    );
    /// Whether leases are needed, or what stands above it says.
    ChosenLeaseMode = words(
        &["optional", "required", "default"],
        "What runs within a quota is fine without a lease; or it is a squatter; or what stands above it says.",
    );
    /// Seconds, one at least.
    SomeSeconds = integer(1, 365 * 24 * 60 * 60).description(Some("Seconds; at most 365 days."));
    /// Seconds.
    Seconds = integer(0, 365 * 24 * 60 * 60).description(Some("Seconds; at most 365 days."));
    /// What the ledger does not justify.
    ViolationClass = words(
        &["squatter", "foreign", "over_quota", "over_node_limit", "unattributed", "ghost"],
        "No quota fits, or no lease where one is required; somebody else's node or lease; more than the quotas that fit, \
         or more cards of a node than its resource group allows; processes of nobody that the agent's rules know; or the \
         opposite: leased, and nothing runs.",
    );
    /// How far an agent may go.
    EnforcementMode = words(
        &["observe", "warn", "restrict", "evict"],
        "Rows and metrics; and people are told; and new opens are denied; and its processes are ended.",
    );
    /// Yes.
    True = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true]));
    /// Page size of document 000.
    PageSize = integer(1, 100).default(Some(10.into()));
    /// Page size of document 003.
    LicencePageSize = integer(1, 200).default(Some(50.into()));
    /// Our number of a licence quota.
    LicenceQuotaId = integer(0, 999_999_999_999_999_999);
    /// A switch as document 003 reads it in a query.
    SwitchWord = any_text()
        .pattern(Some("^(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[01])$"))
        .description(Some("`true`, `false`, `1` or `0`, in any case."));
    /// A fraction in decimals.
    Fraction = any_text()
        .pattern(Some(r"^\+?0*(?:[0-9]{1,9}(?:\.[0-9]{0,9}0*)?|\.[0-9]{1,9}0*)$"))
        .description(Some("A fraction from 0 on in decimals: 1 is 100 percent."));
    /// Orders of document 003.
    LicenceOrder = words(
        &[
            "id", "max_licenses", "used_licenses", "usage_rate", "expires_at", "created_at", "updated_at",
            "-id", "-max_licenses", "-used_licenses", "-usage_rate", "-expires_at", "-created_at", "-updated_at",
        ],
        "By what, with `-` downwards.",
    );
    /// Make of an accelerator card as document 002 reads it.
    AcceleratorWord = any_text()
        .pattern(Some("^(?:[Gg][Pp][Uu]|[Dd][Cc][Uu]|[Mm][Ll][Uu])$"))
        .description(Some("`gpu`, `dcu` or `mlu`, in any case."));
    /// A time in an answer.
    Time = text(20)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .pattern(Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"))
        .description(Some("RFC 3339, UTC, whole seconds."));
    /// A time in a request.
    TimeOrDate = AnyOfBuilder::new()
        .item(any_text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))))
        .item(any_text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Date))))
        .description(Some("RFC 3339 with any offset and at most 9 digits of a second, or a date, which is its 00:00:00Z. The past is taken."));
    /// A date or a run time of jobs.
    RunTime = any_text()
        .pattern(Some("^(?:unlimited|[0-9]{1,5}-(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])$"))
        .description(Some("`unlimited`, or days, hours, minutes and seconds as `D-HH:MM:SS`."));
    /// A rule of the ledger.
    RuleName = any_text()
        .pattern(Some("^[a-z_]{1,40}$"))
        .description(Some("Which rule spoke, e.g. `over_quota` or `no_device`; later versions may know more."));
    /// Where a quota comes from.
    QuotaSource = words(&["purchase", "assign"], "Where a quota comes from.");
    /// Which devices a quota is about.
    QuotaType = words(
        &["flexible", "dedicated", "mig", "vgpu"],
        "Full GPUs of the region, devices of named nodes, MIG instances or vGPU instances of the region.",
    );
    /// Why a quota became smaller.
    DrainCause = words(
        &["shrink", "expiry", "release"],
        "A limit or a list of nodes became smaller, an end was reached, or the quota was released by force.",
    );
    /// Whether something that would have to go is used.
    DrainActivity = words(
        &["idle", "in_use", "unknown"],
        "No process is on any of its devices, at least one is, or it is not known, as of a number.",
    );
    /// What becomes of a change that leaves something in use unjustified.
    OnExcess = words(&["deny", "drain"], "It is refused, or taken and what is over is drained.");
    /// Which devices a model is.
    ModelType = words(&["flexible", "mig", "vgpu"], "What the model is; nodes make a quota dedicated, not a model.");
    /// Make of an accelerator card.
    Accelerator = words(&["gpu", "dcu", "mlu"], "Make of an accelerator card: NVIDIA, Hygon or Cambricon.");
    /// Whether a node is heard.
    NodeState = words(
        &["expected", "up", "silent"],
        "Declared and never heard, connected, or not heard any more. What a silent node holds stays charged.",
    );
    /// Whether the holders of a device are fresh.
    DeviceHealth = words(
        &["ok", "lost", "hung", "unknown"],
        "It answers, the driver says it is gone, a call on it passed its deadline, or NVML does not answer.",
    );
    /// Whether a vGPU instance has its licence.
    LicenceState = words(&["licensed", "unlicensed", "unknown"], "What NVML says of a vGPU instance's licence.");
    /// What the operator says is in a node.
    InventoryFields = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("cpu_cores", integer(0, i64::from(LARGEST_COUNT)).description(Some("Logical CPUs.")))
        .property("memory_bytes", integer(0, i64::MAX).description(Some("Main memory, bytes.")))
        .property("gpu_product", text(255).description(Some("Product of its GPUs.")))
        .property("gpus", integer(0, i64::from(LARGEST_COUNT)).description(Some("How many GPUs.")));
    /// What a node says of itself besides its devices.
    FactFields = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("What is unknown is absent."))
        .property("cpu_cores", integer(0, i64::from(u32::MAX)).description(Some("Logical CPUs.")))
        .property("memory_bytes", integer(0, i64::MAX).description(Some("Main memory, bytes.")))
        .property("driver_version", any_text().description(Some("NVIDIA driver.")))
        .property("nvml", any_text().description(Some(
            "`ok`, `absent`, `driver_not_loaded`, `mismatch`, `unresponsive`, `broken`; empty before it was said.",
        )))
        .required("nvml")
        .property("nvml_detail", any_text().description(Some("One line for a person.")));
    /// How far agents go, how slowly, and when not.
    EnforcementFields = enforcement_schema::one();
    /// What one quota says of enforcement, or null.
    QuotaEnforcement = enforcement_schema::one_or_null();
    /// What is chosen of enforcement for the whole ledger.
    EnforcingFields = enforcement_schema::all();
    /// For how long a person lets steps through.
    ConfirmationSeconds = integer(0, 24 * 60 * 60).description(Some("Seconds; at most a day."));
    /// An answer with nothing to tell.
    Nothing = ObjectBuilder::new().schema_type(Type::Object).max_properties(Some(0));
    /// Any text.
    Text = any_text();
    /// Hours or days.
    UsagePeriod = words(&["hour", "day"], "Hours or days of UTC.").default(Some("hour".into()));
    /// Class of metered time.
    UsageClass = words(
        &["busy", "leased_idle", "free", "squatter", "unknown"],
        "What a device was: held by a tenant that might, leased and held by nobody, neither, held by somebody who might \
         not, or not read.",
    );
    /// What usage is told apart by.
    UsageGroups = any_text()
        .pattern(Some("^(?:|(?:tenant|region|gpu_model|class|node|device)(?:,(?:tenant|region|gpu_model|class|node|device))*)$"))
        .description(Some("Words with commas; none adds everything up."));
    /// Form of an answer.
    UsageFormat = words(&["json", "csv"], "Form of the answer; it wins over the header Accept.");
    /// Where a page of usage begins.
    UsageOffset = integer(0, 100_000);
    /// Rows of a page of usage.
    UsageLimit = integer(1, 100_000);
    /// A switch.
    Flag = ObjectBuilder::new().schema_type(Type::Boolean);
}

fn any_text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn text(most: usize) -> ObjectBuilder {
    any_text().min_length(Some(1)).max_length(Some(most))
}

fn slug(most: usize, of: &str, description: &str) -> ObjectBuilder {
    text(most)
        .pattern(Some(format!(r"^(?!\.{{1,2}}$)[{of}]+$")))
        .description(Some(description))
}

fn plain(most: usize, description: &str) -> ObjectBuilder {
    text(most)
        .pattern(Some(format!("^{EDGE}(?:{INNER}*{EDGE})?$")))
        .description(Some(description))
}

fn words(list: &[&str], description: &str) -> ObjectBuilder {
    any_text()
        .enum_values(Some(list.iter().copied()))
        .description(Some(description))
}

fn integer(least: i64, most: i64) -> ObjectBuilder {
    let number = |number: i64| utoipa::Number::Int(isize::try_from(number).unwrap_or(isize::MAX));
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(number(least)))
        .maximum(Some(number(most)))
}
