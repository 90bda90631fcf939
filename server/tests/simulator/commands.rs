//! What clients ask, as a table: how often, and how the command is made from what the ledger shows. A new kind of command
//! is a new line in it.

use gpuquota_core::command::{
    ChangeLicenceQuota, CheckOutSeat, CreateLicenceQuota, OnExcess, QuotaName, ReleaseQuota,
    RequestLease, SetQuota, SetTenant, SwitchQuota,
};
use gpuquota_core::enforcement::{Enforcement, Enforcing, Guard, Mode};
use gpuquota_core::id::{
    DisplayName, GpuModel, LeaseId, LicenceQuotaId, ProductId, QuotaId, SeatId, TenantNumber,
    Timestamp,
};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;
use gpuquota_core::settings::Settings;
use gpuquota_core::{Command, State};

use crate::dice::Dice;
use crate::names::{GPU, PRODUCTS, TENANTS, VGPU, product, region, tenant};

/// What a command is made from.
pub(crate) struct Ground<'a> {
    pub(crate) dice: &'a mut Dice,
    /// What the caller sees, which may be old.
    pub(crate) state: &'a State,
    /// Wall time by the caller's clock.
    pub(crate) now: Timestamp,
}

type Make = fn(&mut Ground<'_>) -> Command;

/// Weight and kind.
const TABLE: &[(u64, Make)] = &[
    (40, request_lease),
    (8, renew_lease),
    (18, release_lease),
    (16, check_out),
    (4, renew_seat),
    (8, release_seat),
    (8, change_licence_quota),
    (1, create_licence_quota),
    (16, set_quota),
    (3, release_quota),
    (3, switch_quota),
    (2, freeze),
    (2, revoke),
    (3, enforce),
    (2, confirm_steps),
];

/// Any command.
pub(crate) fn draw(ground: &mut Ground<'_>) -> Command {
    let make = ground.dice.weighted(TABLE);
    make(ground)
}

/// What there is before anybody asks.
pub(crate) fn opening() -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for (number, name) in (1..).zip(TENANTS) {
        commands.push(Command::SetTenant(SetTenant {
            number: Some(TenantNumber(number)),
            ..tenant_of(name)
        }));
    }
    for number in PRODUCTS {
        commands.push(Command::SetProduct(product(number)));
    }
    for (number, _) in (1..).zip(TENANTS) {
        commands.push(Command::CreateLicenceQuota(CreateLicenceQuota {
            tenant: TenantNumber(number),
            product: ProductId(number),
            max: 2,
            expires_at: None,
            is_active: true,
        }));
    }
    for name in TENANTS {
        commands.push(Command::SetQuota(SetQuota {
            name: quota_name(name, QuotaSource::Purchase, GPU),
            limit: Limit::Finite(3),
            expires_at: None,
            nodes: None,
            on_excess: OnExcess::Deny,
        }));
    }
    commands.push(Command::SetSettings(Settings {
        confirm_within_ms: 3_000,
        drain_notice_ms: 4_000,
        enforcing: Enforcing {
            usual: evicting(),
            guard: Guard {
                processes: 1,
                percent: 100,
            },
            ..Enforcing::default()
        },
        ..Settings::default()
    }));
    commands
}

fn quota_name(name: &str, source: QuotaSource, gpu_model: &str) -> QuotaName {
    QuotaName {
        tenant: tenant(name),
        region: region(),
        source,
        gpu_model: GpuModel::new(gpu_model).unwrap(),
        quota_type: None,
        reference: None,
    }
}

fn tenant_of(name: &str) -> SetTenant {
    SetTenant {
        tenant: tenant(name),
        number: None,
        display_name: None,
        code: None,
        projects: None,
        frozen: None,
        confined: None,
        lease_mode: None,
        enforcement: None,
    }
}

impl Ground<'_> {
    fn ttl_ms(&mut self) -> u32 {
        let ttl = self.dice.pick(&[50, 500, 5_000, 60_000]);
        u32::try_from(self.dice.within(ttl / 2, ttl)).unwrap()
    }

    // An end soon, or none.
    fn end(&mut self) -> Option<Timestamp> {
        let soon = self.dice.chance(300);
        let ms = self.dice.delay();
        soon.then(|| self.now.after(ms))
    }

    fn seat(&mut self) -> SeatId {
        let seats: Vec<SeatId> = self.state.seats().map(|seat| seat.seat).collect();
        if seats.is_empty() {
            return SeatId(1);
        }
        self.dice.pick(&seats)
    }

    // Mostly one that may still be renewed or released.
    fn lease(&mut self) -> LeaseId {
        let old = self.dice.chance(100);
        let leases = self.state.leases().filter(|lease| old || lease.active());
        let leases: Vec<LeaseId> = leases.map(|lease| lease.id).collect();
        if leases.is_empty() {
            return LeaseId(1);
        }
        self.dice.pick(&leases)
    }

    fn quota_name(&mut self) -> QuotaName {
        let name = self.dice.pick(&TENANTS);
        // Most belong to one source, so that its limit is often reached.
        let assigned = self.dice.chance(250);
        let source = match assigned {
            true => QuotaSource::Assign,
            false => QuotaSource::Purchase,
        };
        quota_name(name, source, self.dice.pick(&[GPU, GPU, GPU, VGPU]))
    }
}

fn request_lease(ground: &mut Ground<'_>) -> Command {
    let counted = ground.dice.chance(300);
    let name = ground.dice.pick(&TENANTS);
    let lasts = ground.dice.chance(200);
    let ttl_ms = u64::from(ground.ttl_ms());
    let count = u32::try_from(ground.dice.within(1, 3)).unwrap();
    let model = ground.dice.pick(&[GPU, GPU, GPU, GPU, VGPU]);
    Command::RequestLease(RequestLease {
        ttl_ms: Some(ttl_ms).filter(|_| !lasts),
        spread: ground.dice.chance(200),
        ..RequestLease::of(
            tenant(name),
            region(),
            GpuModel::new(model).unwrap(),
            if counted { count } else { 1 },
            match counted {
                true => LeasePlacement::CountOnly,
                false => LeasePlacement::Devices,
            },
        )
    })
}

fn renew_lease(ground: &mut Ground<'_>) -> Command {
    Command::RenewLease {
        lease: ground.lease(),
        ttl_ms: Some(ground.ttl_ms().into()),
        expected: None,
    }
}

fn release_lease(ground: &mut Ground<'_>) -> Command {
    Command::ReleaseLease {
        lease: ground.lease(),
        forced: ground.dice.chance(100),
        expected: None,
    }
}

fn check_out(ground: &mut Ground<'_>) -> Command {
    let at = ground.dice.index(TENANTS.len());
    // Mostly what the tenant has a quota of.
    let usual = u32::try_from(at).unwrap() + 1;
    let product = if ground.dice.chance(900) {
        usual
    } else {
        3 - usual
    };
    Command::CheckOutSeat(CheckOutSeat {
        tenant: tenant(TENANTS[at]),
        product: ProductId(product),
        owner: DisplayName::new("somebody").unwrap(),
        ttl_ms: ground.ttl_ms(),
    })
}

fn renew_seat(ground: &mut Ground<'_>) -> Command {
    Command::RenewSeat {
        seat: ground.seat(),
        ttl_ms: ground.ttl_ms(),
    }
}

fn release_seat(ground: &mut Ground<'_>) -> Command {
    Command::ReleaseSeat(ground.seat())
}

fn change_licence_quota(ground: &mut Ground<'_>) -> Command {
    let max = ground.dice.chance(700);
    let moved = ground.dice.chance(300);
    let switched = ground.dice.chance(200);
    let max = max.then(|| u32::try_from(ground.dice.below(5)).unwrap());
    let end = ground.end();
    let is_active = ground.dice.chance(700);
    Command::ChangeLicenceQuota(ChangeLicenceQuota {
        quota: LicenceQuotaId(ground.dice.within(1, 2)),
        max,
        expires_at: moved.then_some(end),
        is_active: switched.then_some(is_active),
        expected: None,
    })
}

fn create_licence_quota(ground: &mut Ground<'_>) -> Command {
    let product = ProductId(ground.dice.pick(&PRODUCTS));
    Command::CreateLicenceQuota(CreateLicenceQuota {
        tenant: TenantNumber(u32::try_from(ground.dice.within(1, 2)).unwrap()),
        product,
        max: 1,
        expires_at: Some(ground.now.after(5_000)),
        is_active: true,
    })
}

fn set_quota(ground: &mut Ground<'_>) -> Command {
    Command::SetQuota(SetQuota {
        name: ground.quota_name(),
        limit: Limit::Finite(u32::try_from(ground.dice.below(4)).unwrap()),
        expires_at: ground.end(),
        nodes: None,
        on_excess: match ground.dice.chance(150) {
            true => OnExcess::Drain,
            false => OnExcess::Deny,
        },
    })
}

fn release_quota(ground: &mut Ground<'_>) -> Command {
    Command::ReleaseQuota(ReleaseQuota {
        name: ground.quota_name(),
        forced: ground.dice.chance(200),
        must_exist: ground.dice.chance(500),
    })
}

fn switch_quota(ground: &mut Ground<'_>) -> Command {
    Command::SwitchQuota(SwitchQuota {
        quota: QuotaId(ground.dice.below(8)),
        active: ground.dice.chance(600),
        on_excess: match ground.dice.chance(300) {
            true => OnExcess::Drain,
            false => OnExcess::Deny,
        },
    })
}

fn freeze(ground: &mut Ground<'_>) -> Command {
    let name = ground.dice.pick(&TENANTS);
    Command::SetTenant(SetTenant {
        frozen: Some(ground.dice.chance(300)),
        ..tenant_of(name)
    })
}

fn evicting() -> Enforcement {
    Enforcement {
        mode: Mode::Evict,
        ..Enforcement::default()
    }
}

// Mostly as the settings say, which is to evict.
fn enforce(ground: &mut Ground<'_>) -> Command {
    let name = ground.dice.pick(&TENANTS);
    let mode = ground
        .dice
        .pick(&[Mode::Observe, Mode::Warn, Mode::Restrict]);
    let own = ground.dice.chance(400).then(|| Enforcement {
        mode,
        ..Enforcement::default()
    });
    Command::SetTenant(SetTenant {
        enforcement: Some(own),
        ..tenant_of(name)
    })
}

fn confirm_steps(ground: &mut Ground<'_>) -> Command {
    let name = ground.dice.pick(&TENANTS);
    Command::ConfirmSteps(Some(tenant(name)), ground.dice.pick(&[0, 5_000, 60_000]))
}

fn revoke(ground: &mut Ground<'_>) -> Command {
    let token = format!("token-{}", ground.dice.below(3));
    let until = ground.now.after(ground.dice.within(0, 10_000));
    Command::RevokeToken { token, until }
}
