//! Whose folder and files are believed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn one_agent_at_a_time_and_nobody_else_looks_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let first = StateFolder::open(&path).unwrap();
    assert!(StateFolder::open(&path).is_err() && StateFolder::is_held(&path));
    assert_eq!(mode(&path), 0o700);
    drop(first);
    assert!(!StateFolder::is_held(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let again = StateFolder::open(&path).unwrap();
    assert_eq!(mode(again.path()), 0o700);
}

#[test]
fn case_60_a_folder_that_cannot_be_made_is_no_reason_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    assert!(StateFolder::open(&file.join("state")).is_ok());
}

#[test]
fn a_folder_of_another_user_is_refused_and_roots_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let own = rustix::process::geteuid().as_raw();
    files::make_folder_as(&path, own).unwrap();
    // Whoever the folder belongs to now is another user for an agent that is this one.
    let other = files::make_folder_as(&path, own + 4321);
    match own {
        0 => assert!(other.is_ok()),
        _ => assert!(matches!(other, Err(FolderError::Foreign { owner }) if owner == own)),
    }
    if own == 0 {
        chown(&path, Some(4321), Some(4321)).unwrap();
        let refused = StateFolder::open(&path).unwrap_err();
        assert!(matches!(
            refused,
            StateError::Foreign {
                owner: 4321,
                own: 0,
                ..
            }
        ));
        assert!(refused.to_string().contains("chown"), "{refused}");
        // A command of root leaves what the agent there can read.
        enter_folder(&path).unwrap();
        write_whole(&path.join("x"), b"1").unwrap();
        assert_eq!(fs::metadata(path.join("x")).unwrap().uid(), 4321);
        assert_eq!(read_own(&path.join("x"), 10).unwrap(), b"1");
    }
}

#[test]
fn no_link_is_followed_and_no_file_that_others_can_write_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("victim"), "precious").unwrap();
    for name in ["lock", "quiesced", "quiesced.new"] {
        symlink(at("victim"), at(name)).unwrap();
    }
    let _agent = StateFolder::open(dir.path()).unwrap();
    assert!(read_own(&at("quiesced"), 100).is_err());
    write_whole(&at("quiesced"), b"order").unwrap();
    assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
    assert!(!at("quiesced").is_symlink());
    assert_eq!(
        (read_own(&at("quiesced"), 5).unwrap(), mode(&at("quiesced"))),
        (b"order".to_vec(), 0o600)
    );
    assert!(
        read_own(&at("quiesced"), 4).is_err(),
        "longer than asked for"
    );
    fs::set_permissions(at("quiesced"), fs::Permissions::from_mode(0o622)).unwrap();
    assert!(read_own(&at("quiesced"), 100).is_err());
    // A pipe would keep whoever opens it waiting.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    assert!(read_own(&at("pipe"), 100).is_err());
}
