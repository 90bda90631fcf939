//! The table with real processes and real files.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};

use super::*;

fn child() -> Child {
    Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
}

fn start_time(pid: u32) -> u64 {
    ProcessFolder::open(pid).unwrap().start_time().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o700);
    folder
}

/// Case 68: an entry is for one life of a pid; the next process with that pid is nobody's.
#[test]
fn an_entry_ends_with_its_process() {
    let folder = folder();
    let (mut one, mut two) = (child(), child());
    let mut table = Registered::new(folder.path());
    table.refresh();
    assert_eq!(table.problem(), None, "an absent table is no problem");
    register(folder.path(), one.id(), "a").unwrap();
    register(folder.path(), two.id(), "x").unwrap();
    register(folder.path(), two.id(), "b").unwrap();
    table.refresh();
    let begun = start_time(one.id());
    assert_eq!(table.tenant(one.id(), begun), Some("a"));
    assert_eq!(table.tenant(two.id(), start_time(two.id())), Some("b"));
    assert_eq!(table.tenant(one.id(), begun + 1), None);

    one.kill().unwrap();
    one.wait().unwrap();
    assert!(matches!(
        register(folder.path(), one.id(), "a"),
        Err(RegisterError::Process(_))
    ));
    assert!(matches!(
        register(folder.path(), two.id(), "../a"),
        Err(RegisterError::Tenant(_))
    ));
    unregister(folder.path(), 1).unwrap();
    table.refresh();
    assert_eq!(table.tenants.len(), 1, "the ended process was dropped");
    unregister(folder.path(), two.id()).unwrap();
    table.refresh();
    assert!(table.tenants.is_empty());
    two.kill().unwrap();
    two.wait().unwrap();
}

#[test]
fn a_table_that_others_could_have_written_is_ignored() {
    let folder = folder();
    let mut one = child();
    let begun = start_time(one.id());
    register(folder.path(), one.id(), "a").unwrap();
    let path = folder.path().join(TABLE);
    let good = fs::read_to_string(&path).unwrap();
    let mut table = Registered::new(folder.path());
    let mut tenant = |expected: Option<&str>| {
        table.refresh();
        assert_eq!(table.tenant(one.id(), begun), expected);
        assert_eq!(table.problem().is_none(), expected.is_some());
        table.problem().unwrap_or_default().to_owned()
    };
    tenant(Some("a"));
    set_mode(&path, 0o620);
    assert!(tenant(None).contains("others may write"));
    assert!(matches!(
        unregister(folder.path(), 1),
        Err(RegisterError::Table(_))
    ));
    set_mode(&path, 0o600);
    tenant(Some("a"));
    fs::write(&path, good.replace("\"a\"", "\"../a\"")).unwrap();
    assert!(tenant(None).contains("tenant name"));
    fs::write(&path, good.replace("start_time", "began")).unwrap();
    tenant(None);
    fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    symlink(folder.path().join("elsewhere"), &path).unwrap();
    tenant(None);
    fs::remove_file(&path).unwrap();
    // Another boot's entry is nobody's, but no problem either.
    let old = good.replace(&boot_id().unwrap(), "00000000-0000-0000-0000-000000000000");
    fs::write(&path, old).unwrap();
    set_mode(&path, 0o600);
    let mut table = Registered::new(folder.path());
    table.refresh();
    assert_eq!(
        (table.tenant(one.id(), begun), table.problem()),
        (None, None)
    );
    fs::write(&path, &good).unwrap();
    table.refresh();
    assert_eq!(table.tenant(one.id(), begun), Some("a"));
    set_mode(folder.path(), 0o770);
    table.refresh();
    assert!(table.problem().unwrap().contains("others may write"));
    one.kill().unwrap();
    one.wait().unwrap();
}
