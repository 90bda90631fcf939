//! Whom commands and events are about, for the audit.

use std::collections::BTreeSet;

use crate::command::Command;
use crate::event::Event;
use crate::id::{LeaseId, LicenceQuotaId, ProjectId, QuotaId, SeatId, TenantName, TenantNumber};
use crate::state::State;

/// What a command or an event names a tenant by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Its name.
    Tenant(TenantName),
    /// Its number.
    Number(TenantNumber),
    /// One of its projects.
    Project(ProjectId),
    /// One of its quotas.
    Quota(QuotaId),
    /// One of its leases.
    Lease(LeaseId),
    /// One of its licence quotas.
    LicenceQuota(LicenceQuotaId),
    /// One of its seats.
    Seat(SeatId),
    /// It is about no one tenant.
    Nobody,
}

impl Subject {
    /// Its name, where the ledger knows it.
    #[must_use]
    pub fn tenant_in(&self, state: &State) -> Option<TenantName> {
        let tenant = match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::Number(number) => {
                let tenant = state.tenant_by_number(*number);
                tenant.map(|tenant| &tenant.profile.tenant)
            }
            Self::Project(project) => {
                let tenant = state.tenant_of_project(project);
                tenant.map(|tenant| &tenant.profile.tenant)
            }
            Self::Quota(quota) => state.quota(*quota).map(|quota| &quota.key.tenant),
            Self::Lease(lease) => state.lease(*lease).map(|lease| &lease.terms.tenant),
            Self::LicenceQuota(quota) => {
                let quota = state.licence_quota(*quota);
                quota.map(|quota| &quota.terms.tenant)
            }
            Self::Seat(seat) => state.seat(*seat).map(|seat| &seat.tenant),
            Self::Nobody => None,
        };
        tenant.cloned()
    }
}

impl Command {
    /// Whom it is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let tenant = |tenant: &TenantName| Subject::Tenant(tenant.clone());
        match self {
            Self::SetQuota(set) => tenant(&set.name.tenant),
            Self::ReleaseQuota(release) => tenant(&release.name.tenant),
            Self::SetTenant(set) => tenant(&set.tenant),
            Self::SetCardLimit(key, _) => key.tenant.as_ref().map_or(Subject::Nobody, tenant),
            Self::SetHostLimit(key, _) => tenant(&key.tenant),
            Self::SetCounter(set) => Subject::Project(set.project.clone()),
            Self::CreateLicenceQuota(create) => Subject::Number(create.tenant),
            Self::SwitchQuota(switch) => Subject::Quota(switch.quota),
            Self::SetQuotaEnforcement(quota, _) => Subject::Quota(*quota),
            Self::ConfirmSteps(whose, _) => whose.as_ref().map_or(Subject::Nobody, tenant),
            Self::ChangeLicenceQuota(change) => Subject::LicenceQuota(change.quota),
            Self::IfUnchanged { command, .. } => command.subject(),
            Self::RequestLease(request) => tenant(&request.tenant),
            Self::RenewLease { lease, .. } | Self::ReleaseLease { lease, .. } => {
                Subject::Lease(*lease)
            }
            Self::CheckOutSeat(check_out) => tenant(&check_out.tenant),
            Self::RenewSeat { seat, .. } | Self::ReleaseSeat(seat) => Subject::Seat(*seat),
            Self::DeclareNode(_)
            | Self::SetRegion(_)
            | Self::SetGroup(_)
            | Self::RemoveGroup(_)
            | Self::SetHostResource(_)
            | Self::RemoveHostResource(_)
            | Self::SetModel(_)
            | Self::RemoveModel(_)
            | Self::SetProduct(_)
            | Self::RemoveProduct(_)
            | Self::SetSettings(_)
            | Self::Agree { .. }
            | Self::OpenSession { .. }
            | Self::Report(_)
            | Self::MarkSilent { .. }
            | Self::RetireNode { .. }
            | Self::ForgetGpu { .. }
            | Self::MarkHeard { .. }
            | Self::BeginSteps(_)
            | Self::EndStep(_)
            | Self::RevokeToken { .. }
            | Self::MakeJoinToken { .. }
            | Self::Certify(_)
            | Self::Ban(..)
            | Self::Sweep
            | Self::NoteUsage { .. }
            | Self::NoteSnapshot { .. }
            | Self::NoteArchive(_)
            | Self::Restore(..) => Subject::Nobody,
        }
    }
}

impl Event {
    // Whom it is about by a number of the ledger's; what names its tenant itself is nobody's here.
    fn numbered_subject(&self) -> Subject {
        match self {
            Self::QuotaExpired { quota }
            | Self::QuotaSwitched { quota, .. }
            | Self::QuotaEnforcementSet { quota, .. }
            | Self::QuotaReleased { quota, .. }
            | Self::QuotaNoticed { quota, .. } => Subject::Quota(*quota),
            Self::LeaseRenewed { lease, .. }
            | Self::LeaseToLeave { lease, .. }
            | Self::LeaseReleasing { lease, .. }
            | Self::LeaseFreed { lease, .. }
            | Self::LeaseWaiting { lease, .. }
            | Self::LeaseEnded { lease, .. } => Subject::Lease(*lease),
            Self::LicenceQuotaExpired { quota } => Subject::LicenceQuota(*quota),
            Self::SeatReleased { seat } | Self::SeatExpired { seat } => Subject::Seat(*seat),
            Self::CounterSet(set) => Subject::Project(set.project.clone()),
            Self::TenantCreated { .. }
            | Self::TenantSet(_)
            | Self::QuotaSet { .. }
            | Self::CardLimitSet { .. }
            | Self::HostLimitSet { .. }
            | Self::LeaseGranted { .. }
            | Self::LicenceQuotaSet(_)
            | Self::SeatSet(_)
            | Self::DrainBegun { .. }
            | Self::DrainEnforced { .. }
            | Self::DrainEnded { .. }
            | Self::RegionSet(_)
            | Self::GroupSet(_)
            | Self::GroupRemoved { .. }
            | Self::HostResourceSet(_)
            | Self::HostResourceRemoved { .. }
            | Self::ModelSet(_)
            | Self::ModelRemoved { .. }
            | Self::ProductSet(_)
            | Self::ProductRemoved { .. }
            | Self::NodeDeclared { .. }
            | Self::SessionOpened { .. }
            | Self::NodeRetired { .. }
            | Self::DevicesForgotten { .. }
            | Self::NodeSilent { .. }
            | Self::NodeHeard { .. }
            | Self::NodeReported { .. }
            | Self::NodeSettled { .. }
            | Self::SettingsSet(_)
            | Self::StepsBegun(_)
            | Self::StepsHeld(_)
            | Self::StepsConfirmed(_)
            | Self::StepEnded(_)
            | Self::TokenRevoked { .. }
            | Self::JoinTokenMade(_)
            | Self::NodeCertified(_)
            | Self::Banned(_)
            | Self::Unbanned(_)
            | Self::SnapshotTaken { .. }
            | Self::HourClosed { .. }
            | Self::UsageStored { .. }
            | Self::Archived(_)
            | Self::Restored { .. } => Subject::Nobody,
        }
    }
}

impl State {
    /// Tenants whom these events are about without naming them, by what the ledger knows before they are applied.
    #[must_use]
    pub fn unnamed_in(&self, events: &[Event]) -> BTreeSet<TenantName> {
        let subjects = events.iter().map(Event::numbered_subject);
        subjects
            .filter_map(|subject| subject.tenant_in(self))
            .collect()
    }
}
