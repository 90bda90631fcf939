//! An fsync that fails in a real program: a library that is loaded into it before its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What happens after the sync that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next ones succeed.
    Lives,
    /// The process is gone at the next one, as by kill -9.
    Dies,
}

/// The library, its switch, and which files it is about.
#[derive(Clone, Debug)]
pub struct FailingSync {
    library: PathBuf,
    switch: PathBuf,
    of: String,
}

impl FailingSync {
    /// For files with `of` in their path; `None` without a C compiler.
    #[must_use]
    pub fn build(dir: &Path, of: &str) -> Option<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/failing_sync.c");
        let library = dir.join("failing_sync.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
        compiler.arg(&library).arg(source).arg("-ldl");
        // The program may run as somebody else.
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(dir, all).unwrap();
        let built = compiler.output().ok()?;
        assert!(built.status.success(), "{built:?}");
        Some(Self {
            library,
            switch: dir.join("fail_next_sync"),
            of: of.to_owned(),
        })
    }

    /// What the program needs in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        let pairs = [
            ("LD_PRELOAD", text(&self.library)),
            ("GPUQUOTA_SYNC_OF", self.of.clone()),
            ("GPUQUOTA_SYNC_SWITCH", text(&self.switch)),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// The next sync fails.
    pub fn fail_next(&self, then: Then) {
        let how = match then {
            Then::Lives => "fail",
            Then::Dies => "die",
        };
        // Put there whole, and by anybody's leave to take it away.
        let draft = self.switch.with_extension("draft");
        std::fs::write(&draft, how).unwrap();
        std::fs::rename(&draft, &self.switch).unwrap();
    }

    /// Whether it failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.switch.exists()
    }
}
