//! Planted bugs, which the simulator has to find. With the feature `mutants`, which no program is built with, a test plants
//! one in its own thread; without it `planted` is a constant, and nothing of this is left.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Answers are given before their rows are appended.
    AnswerBeforeAppend,
    /// After a lost race the decision is made again on the state that lost.
    DecideOnStaleState,
    /// What was decided upon a batch counts although that batch was not written.
    TrustWhatIsAhead,
    /// A restart forgets which operations were answered.
    ForgetOperations,
    /// An operation id stands for whatever is asked under it.
    IgnoreFingerprint,
    /// What is due by time is not recorded before a batch is decided.
    DecideBeforeSweep,
    /// A snapshot counts although no row vouches for it.
    TrustAnySnapshot,
    /// A node is heard in an old session.
    HearOldSession,
    /// A seat is granted when none is left.
    OneSeatTooMany,
    /// Leases are admitted as if nothing were used.
    IgnoreUse,
    /// A lease that is to end keeps nobody off its devices.
    GrantWhileReleasing,
    /// A lease ends by any report of its node.
    EndUnconfirmed,
    /// An agent may take whatever step it asks for.
    AllowAnyStep,
    /// However much would happen at once, no person is waited for.
    ForgetTheGuard,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::AnswerBeforeAppend,
        Self::DecideOnStaleState,
        Self::TrustWhatIsAhead,
        Self::ForgetOperations,
        Self::IgnoreFingerprint,
        Self::DecideBeforeSweep,
        Self::TrustAnySnapshot,
        Self::HearOldSession,
        Self::OneSeatTooMany,
        Self::IgnoreUse,
        Self::GrantWhileReleasing,
        Self::EndUnconfirmed,
        Self::AllowAnyStep,
        Self::ForgetTheGuard,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or takes it away.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted in this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Never: the program is built without planted bugs.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline]
pub const fn planted(_: Mutant) -> bool {
    false
}
