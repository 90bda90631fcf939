//! Scans of a `/proc` of files, and memory maps as a tenant may shape them.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn rule_14_open_nodes_are_found_and_the_rest_is_not() {
    let root = tempfile::tempdir().unwrap();
    let process = |pid: &str, targets: &[&str]| {
        let fd = root.path().join(pid).join("fd");
        fs::create_dir_all(&fd).unwrap();
        for (number, target) in targets.iter().enumerate() {
            symlink(target, fd.join(number.to_string())).unwrap();
        }
    };
    // Nodes that every host has stand for NVIDIA's: by their numbers, 1:3 and 1:7.
    let own = tempfile::tempdir().unwrap();
    let named_so = own.path().join("nvidia0");
    fs::write(&named_so, "").unwrap();
    let named_so = named_so.to_str().unwrap();
    let other_name = own.path().join("x");
    symlink("/dev/full", &other_name).unwrap();
    process(
        "10",
        &["/dev/null", other_name.to_str().unwrap(), "socket:[1]"],
    );
    process("11", &["/dev/tty", "/dev/nvidia0", "/"]);
    process("12", &[named_so]);
    process("self", &["/dev/null"]);
    fs::create_dir(root.path().join("13")).unwrap();
    assert_eq!(scan(root.path()).minors, BTreeMap::new());
    let devices = "Character devices:\n  4 tty\n  1 nvidia-frontend\n235 nvidia-caps\n";
    fs::write(root.path().join("devices"), devices).unwrap();
    let found = scan(root.path());
    assert_eq!(found.minors, BTreeMap::from([(10, BTreeSet::from([3, 7]))]));
    assert!(found.missed.is_empty());
    assert_eq!(scan(&root.path().join("none")), Openers::default());

    let gpu = root.path().join("driver/nvidia/gpus/0000:18:00.0");
    fs::create_dir_all(&gpu).unwrap();
    let text = "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-1-2\nBus Location: \t 0000:18:00.0\nDevice Minor: \t 3\n";
    fs::write(gpu.join("information"), text).unwrap();
    assert_eq!(
        uuids(root.path()),
        BTreeMap::from([(3, "GPU-1-2".to_owned())])
    );
    assert_eq!(
        identity(&text.replace("GPU-1-2", "GPU-????????-????")),
        None
    );
}

/// What is mapped is known by its inode; the path only leads to it, in the process's own tree.
#[test]
fn rule_14_a_mapped_node_is_known_by_what_is_mapped() {
    let process = tempfile::tempdir().unwrap();
    symlink("/", process.path().join("root")).unwrap();
    let null = node(Path::new("/dev/null")).unwrap();
    let line = |permissions: &str, inode: u64, path: &str| {
        let (major, minor) = (null.stx_dev_major, null.stx_dev_minor);
        format!("7f00-8000 {permissions} 00000000 {major:02x}:{minor:02x} {inode} {path}\n")
    };
    let minors = |text: String| {
        fs::write(process.path().join("maps"), text).unwrap();
        mapped(process.path(), 1, MOST_MAP).unwrap().minors
    };
    let inode = null.stx_ino;
    let good = line("rw-s", inode, "          /dev/null");
    assert_eq!(minors(good.clone() + &good), BTreeSet::from([3]));
    for other in [
        line("rw-p", inode, "/dev/null"),
        line("rw-s", inode + 1, "/dev/null"),
        line("rw-s", inode, "/dev/nvidia0"),
        line("rw-s", inode, "/dev/null (deleted)"),
        line("rw-s", inode, "/etc/passwd"),
        "7f00-8000 rw-s /dev/null\n\n".to_owned(),
    ] {
        assert_eq!(minors(other.clone()), BTreeSet::new(), "{other}");
    }
}

/// Who has very much open or mapped hides at most itself, and that is told.
#[test]
fn rule_14_what_a_scan_leaves_out_is_told_and_nobody_else_pays_for_it() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("devices"), "  1 nvidia\n").unwrap();
    let null = node(Path::new("/dev/null")).unwrap();
    let (major, minor, inode) = (null.stx_dev_major, null.stx_dev_minor, null.stx_ino);
    let other = "7f00-8000 rw-s 00000000 00:05 77 /dev/shm/x\n".repeat(120_000);
    let map = format!("{other}7f00-8000 rw-s 00000000 {major:02x}:{minor:02x} {inode} /dev/null\n");
    for pid in ["10", "11", "12"] {
        let process = root.path().join(pid);
        fs::create_dir_all(process.join("fd")).unwrap();
        symlink("/", process.join("root")).unwrap();
        let descriptors = if pid == "12" { 1 } else { 9 };
        for number in 0..descriptors {
            symlink("/dev/full", process.join(format!("fd/{number}"))).unwrap();
        }
    }
    fs::write(root.path().join("10/maps"), &map).unwrap();
    fs::write(root.path().join("11/maps"), &other).unwrap();
    let scan = |limits| scan_within(root.path(), &limits);
    let found = scan(Limits {
        of_one: 8,
        ..LIMITS
    });
    assert_eq!(found.missed, Missed { denied: 0, cut: 2 });
    let minors = |pid| found.minors[&pid].clone();
    assert_eq!(
        minors(10),
        BTreeSet::from([3, 7]),
        "by its map of more than 4 MiB"
    );
    assert_eq!(
        (minors(11), minors(12)),
        (BTreeSet::from([7]), BTreeSet::from([7]))
    );
    assert_eq!(scan(LIMITS).missed, Missed::default());
    assert_eq!(
        scan(Limits {
            processes: 1,
            ..LIMITS
        })
        .missed
        .cut,
        2
    );
    assert!(
        scan(Limits {
            descriptors: 10,
            ..LIMITS
        })
        .missed
        .cut > 0
    );
    let held = mapped(&root.path().join("10"), 1, 1 << 20).unwrap();
    assert_eq!(
        held,
        Held {
            minors: BTreeSet::new(),
            cut: true
        }
    );
}

proptest::proptest! {
    #![proptest_config(crate::fuzz::config())]

    /// A tenant chooses the path, and with it what the line looks like.
    #[test]
    fn rule_14_no_path_makes_a_mapping_what_it_is_not(
        path in proptest::collection::vec(1_u8.., 0..64),
        shared: bool,
        inode: u64,
        within_dev: bool,
    ) {
        let path: Vec<u8> = path.into_iter().filter(|b| *b != b'\n').collect();
        let start: &[u8] = if within_dev { b"/dev/" } else { b"/" };
        let path = [start, path.as_slice()].concat();
        let kind = if shared { 's' } else { 'p' };
        let fields = format!("7f00-8000 rw-{kind} 00000000 fd:1f {inode}      ");
        let line = [fields.as_bytes(), &path].concat();
        let expected = (shared && path.starts_with(b"/dev/"))
            .then_some(Mapping { file: (0xfd, 0x1f, inode), path: &path });
        proptest::prop_assert_eq!(mapping(&line), expected);
        // Wherever it leads, it is no node: none has this inode.
        let process = tempfile::tempdir().unwrap();
        symlink("/", process.path().join("root")).unwrap();
        fs::write(process.path().join("maps"), &line).unwrap();
        let held = mapped(process.path(), 1, MOST_MAP).unwrap();
        proptest::prop_assert_eq!(held, Held::default());
    }

    #[test]
    fn rule_14_no_line_of_a_map_is_too_strange(line: Vec<u8>) {
        if let Some(map) = mapping(&line) {
            proptest::prop_assert!(map.path.starts_with(b"/dev/"));
        }
    }
}
