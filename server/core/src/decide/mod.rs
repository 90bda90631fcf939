//! From a command to events or a denial. Never changes the state, never reads a clock.

mod directory;
mod displace;
mod drain;
mod join;
mod lease;
mod licence;
mod licence_why;
mod node;
mod preview;
mod quota;
mod retire;
mod steps;
mod switch;

pub use preview::Preview;

use crate::command::{Command, Decision, Outcome};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{Seq, Timestamp};
use crate::meter::Hour;
use crate::object::Object;
use crate::state::State;

impl State {
    /// What `command` would do at `now`, given that everything due by `now` was swept before.
    ///
    /// # Errors
    /// When the ledger does not grant it.
    pub fn decide(&self, command: &Command, now: Timestamp) -> Result<Decision, Denied> {
        let decision = self.decide_itself(command, now)?;
        let mut decision = self.with_drains(command, decision, now);
        decision.events.extend(self.let_stay(&decision.events, now));
        Ok(decision)
    }

    // What the command does by itself, without the drains that it begins and ends.
    fn decide_itself(&self, command: &Command, now: Timestamp) -> Result<Decision, Denied> {
        match command {
            Command::SetQuota(set) => self.decide_set_quota(set, now),
            Command::ReleaseQuota(release) => self.decide_release_quota(release),
            Command::SwitchQuota(switch) => self.decide_switch_quota(*switch, now),
            Command::DeclareNode(declared) => Ok(self.decide_declare_node(declared)),
            Command::SetTenant(set) => self.decide_set_tenant(set),
            Command::SetRegion(region) => {
                let old = self.rows.regions.get(&region.region);
                Ok(done(directory::changed(old, region, Event::RegionSet)))
            }
            Command::SetGroup(group) => {
                let old = self.group(&group.group);
                Ok(done(directory::changed(old, group, Event::GroupSet)))
            }
            Command::RemoveGroup(group) => match self.group(group) {
                Some(_) => Ok(done(vec![Event::GroupRemoved {
                    group: group.clone(),
                }])),
                None => Err(directory::unknown("resource group", group.as_str())),
            },
            Command::SetCardLimit(key, cards) => self.decide_set_card_limit(key, *cards),
            Command::SetHostResource(resource) => self.decide_set_host_resource(resource),
            Command::RemoveHostResource(resource) => self.decide_remove_host_resource(resource),
            Command::SetHostLimit(key, limit) => self.decide_set_host_limit(key, *limit),
            Command::SetModel(entry) => self.decide_set_model(entry),
            Command::RemoveModel(model) => self.decide_remove_model(model),
            Command::SetCounter(set) => self.decide_set_counter(set),
            Command::SetProduct(product) => self.decide_set_product(product),
            Command::RemoveProduct(product) => self.decide_remove_product(*product),
            Command::CreateLicenceQuota(create) => self.decide_create_licence_quota(create),
            Command::ChangeLicenceQuota(change) => self.decide_change_licence_quota(change),
            Command::IfUnchanged {
                object,
                expected,
                command,
            } => self.decide_if_unchanged(object, *expected, command, now),
            Command::SetSettings(settings) => Ok(self.decide_set_settings(settings)),
            Command::RequestLease(request) => self.decide_request_lease(request, now),
            Command::RenewLease {
                lease,
                ttl_ms,
                expected,
            } => self.decide_renew_lease(*lease, *ttl_ms, *expected, now),
            Command::ReleaseLease {
                lease,
                forced,
                expected,
            } => self.decide_release_lease(*lease, *forced, *expected, now),
            Command::Agree {
                node,
                session,
                read_after,
            } => self.decide_agree(node, *session, *read_after),
            Command::CheckOutSeat(check_out) => self.decide_check_out(check_out, now),
            Command::RenewSeat { seat, ttl_ms } => self.decide_renew_seat(*seat, *ttl_ms, now),
            Command::ReleaseSeat(seat) => self.decide_release_seat(*seat),
            Command::OpenSession {
                node,
                default_region,
                boot_id,
                agent_version,
            } => Ok(self.decide_open_session(node, default_region, boot_id, agent_version, now)),
            Command::Report(report) => self.decide_report(report, now),
            Command::RetireNode { node, forced } => self.decide_retire(node, *forced, now),
            Command::ForgetGpu { gpu, forced } => self.decide_forget_gpu(gpu, *forced, now),
            Command::MarkSilent {
                node,
                session,
                reason,
            } => self.decide_silence(node, *session, *reason),
            Command::MarkHeard { node, session } => self.decide_heard(node, *session, now),
            Command::SetQuotaEnforcement(quota, enforcement) => {
                self.decide_set_quota_enforcement(*quota, enforcement.as_ref())
            }
            Command::BeginSteps(begin) => self.decide_begin_steps(begin, now),
            Command::EndStep(end) => self.decide_end_step(end, now),
            Command::ConfirmSteps(tenant, for_ms) => {
                let tenant = tenant.as_ref();
                Ok(self.decide_confirm_steps(tenant, *for_ms, now))
            }
            Command::RevokeToken { token, until } => Ok(self.decide_revoke(token, *until, now)),
            Command::MakeJoinToken { hash, node, ttl_ms } => {
                self.decide_make_join_token(hash, node, *ttl_ms, now)
            }
            Command::Certify(certified) => self.decide_certify(certified, now),
            Command::Ban(who, true) => self.decide_ban(who),
            Command::Ban(who, false) => self.decide_unban(who),
            Command::Sweep => Ok(self.decide_sweep(now)),
            Command::NoteUsage { through } => Ok(self.decide_note_usage(*through)),
            Command::NoteSnapshot { seq, digest } => Ok(done(vec![Event::SnapshotTaken {
                seq: *seq,
                digest: digest.clone(),
            }])),
            Command::NoteArchive(archive) => Ok(done(vec![Event::Archived(archive.clone())])),
            Command::Restore(at_least, replaced) => Ok(done(vec![Event::Restored {
                incarnation: self.rows.incarnation.next().max(*at_least),
                replaced: replaced.clone(),
            }])),
        }
    }

    // What is not there is as good as changed, unless the command has its own word for that.
    fn decide_if_unchanged(
        &self,
        object: &Object,
        expected: Seq,
        command: &Command,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let known = self.generation(object);
        unchanged(object.word(), Some(expected), known.unwrap_or(expected))?;
        let decision = self.decide_itself(command, now)?;
        match known {
            Some(_) => Ok(decision),
            None => Err(Denied::Changed {
                what: object.word().into(),
            }),
        }
    }

    fn decide_sweep(&self, now: Timestamp) -> Decision {
        let index = &self.index;
        let quotas = index.expiring.iter().take_while(|(at, _)| *at <= now);
        let quotas = quotas.map(|(_, quota)| Event::QuotaExpired { quota: *quota });
        let licences = index.licences_expiring.iter();
        let licences = licences
            .take_while(|(at, _)| *at <= now)
            .map(|(_, quota)| Event::LicenceQuotaExpired { quota: *quota });
        let seats = index.seats_expiring.iter().take_while(|(at, _)| *at <= now);
        let seats = seats.map(|(_, seat)| Event::SeatExpired { seat: *seat });
        let leases = self.leases_due(now);
        let hours = self.hours_due(now);
        let rest = quotas.chain(licences).chain(seats).chain(leases);
        done(hours.into_iter().chain(rest).collect())
    }

    // One event, however long nobody was there to close them.
    fn hours_due(&self, now: Timestamp) -> Option<Event> {
        let due = self.hour_due().filter(|due| *due <= now);
        due.map(|_| Event::HourClosed {
            from: self.closed_before().start(),
            to: Hour::of(now).start(),
        })
    }

    // Another server may have stored them too, and later ones.
    fn decide_note_usage(&self, through: Hour) -> Decision {
        let new = through > self.stored_before() && through <= self.closed_before();
        let stored = new.then(|| Event::UsageStored {
            through: through.start(),
        });
        done(stored.into_iter().collect())
    }

    fn decide_revoke(&self, token: &str, until: Timestamp, now: Timestamp) -> Decision {
        let known = self.rows.revoked.get(token);
        if until <= now || known.is_some_and(|known| *known >= until) {
            return done(Vec::new());
        }
        done(vec![Event::TokenRevoked {
            token: token.to_owned(),
            until,
        }])
    }
}

// Checked where it is decided: between a caller's reading and its writing somebody else may have written.
fn unchanged(what: &str, expected: Option<Seq>, changed: Seq) -> Result<(), Denied> {
    match expected {
        Some(expected) if expected != changed => Err(Denied::Changed { what: what.into() }),
        Some(_) | None => Ok(()),
    }
}

fn done(events: Vec<Event>) -> Decision {
    Decision {
        events,
        outcome: Outcome::Done,
    }
}
