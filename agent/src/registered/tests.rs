//! The table with real processes and real files.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::fuzz;

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

fn any_entry() -> impl Strategy<Value = Entry> {
    let tenant = prop_oneof![8 => "[ab]", 1 => "\\PC{0,8}"];
    (0_u32..4, 0_u64..3, "[01]", tenant).prop_map(|(pid, start_time, boot_id, tenant)| Entry {
        pid,
        start_time,
        boot_id,
        tenant,
    })
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// Whatever lines stand there, a table says one thing of a process or nothing at all.
    #[test]
    fn a_table_says_one_thing_or_nothing(
        entries in proptest::collection::vec(any_entry(), 0..6),
        junk in proptest::option::weighted(0.3, "\\PC{0,60}"),
        cut in any::<prop::sample::Index>(),
    ) {
        let line = |entry: &Entry| serde_json::to_string(entry).unwrap();
        let mut lines: Vec<String> = entries.iter().map(line).collect();
        lines.extend(junk);
        let text = lines.join("\n");
        if let Ok(read) = parse(&text) {
            prop_assert!(read.iter().all(|entry| is_tenant_name(&entry.tenant)));
            let life = |entry: &Entry| (entry.boot_id.clone(), entry.pid, entry.start_time);
            for (one, other) in read.iter().flat_map(|one| read.iter().map(move |other| (one, other))) {
                prop_assert!(life(one) != life(other) || one.tenant == other.tenant);
            }
            prop_assert!(read.len() >= entries.len());
        }
        // A torn file loses its torn line with all others.
        let end = (0..=cut.index(text.len() + 1)).rev().find(|end| text.is_char_boundary(*end));
        let torn = parse(text.get(..end.unwrap_or(0)).unwrap_or_default());
        prop_assert!(torn.is_err() || torn.unwrap().len() <= lines.len());
    }
}
